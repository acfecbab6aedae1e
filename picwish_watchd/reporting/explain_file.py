"""Explain what an inbox does with a file that has no job: ignored (and by what), settling, rejected, or its cost."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from picwish_watchd.config.schema import Rule
from picwish_watchd.fs.hang_guard import resolve_paths
from picwish_watchd.fs.safe_open import describe_file_type, stamp_of, stat_file
from picwish_watchd.fs.verdicts import Changed, Incomplete, Missing, Rejected, Unreadable
from picwish_watchd.images.inspect import ValidImage
from picwish_watchd.images.link_files import ValidLink
from picwish_watchd.inbox.name_filter import NameFilter
from picwish_watchd.job import Job, NewJob, State
from picwish_watchd.pipeline.admission import (
    build_new_job,
    forbidden_link_targets,
    has_settle_expired,
    is_unchanged,
    seconds_unchanged,
    validate_file,
)
from picwish_watchd.pipeline.duplicates import find_first_job, mark_own_results
from picwish_watchd.pipeline.result_names import find_existing_result
from picwish_watchd.pricing import PRICES
from picwish_watchd.reporting.snapshot import Snapshot
from picwish_watchd.wording import printable_path


@dataclass(frozen=True, slots=True)
class Ignored:
    """The rule ignores the file; ``reason`` says why."""

    reason: str
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class FileExplanation:
    """What the rule does with the file, and the advice, or None where there is nothing to do."""

    reason: str
    advice: str | None = None


def explain_file(
    snapshot: Snapshot, rule: Rule, relative: Path, last: Job | None = None
) -> FileExplanation | Ignored | None:
    """Return what becomes of the file at ``relative`` below the inbox; the file is read.

    None: no file is there, or its content is that of ``last``, the newest job of its path, if that is given.
    """
    source = rule.inbox / relative
    status = stat_file(source, follow_symlinks=rule.follow_symlinks)
    if isinstance(status, Missing):
        if not rule.follow_symlinks or not os.path.islink(source):
            return None
        return Ignored("it is a symbolic link that leads nowhere", "fix the link, or remove it")
    if relative == Path():
        return _explain_folder(snapshot, rule, source, f"it is the inbox of rule {rule.name}")
    ignored = _find_ignore_reason(snapshot, rule, relative)
    if ignored is not None:
        return ignored
    if isinstance(status, Unreadable):
        return _explain_unreadable(status.reason)
    if stat.S_ISDIR(status.st_mode) and last is None and not _is_included(rule, relative):
        return _explain_folder(snapshot, rule, source, f"it is a folder that is scanned for rule {rule.name}")
    unchanged_for = seconds_unchanged(status, snapshot.now)
    if unchanged_for is not None and unchanged_for < rule.settle:
        reason = f"it is settling: last changed {unchanged_for:.1f} s ago, settle is {rule.settle:g} s"
        return FileExplanation(
            reason, _describe_intake(snapshot, rule, f"it is taken {rule.settle:g} s after its last change")
        )
    verdict = validate_file(source, snapshot.config.api, rule, final=has_settle_expired(rule, status, snapshot.now))
    match verdict:
        case ValidImage() | ValidLink() | Rejected():
            [new] = mark_own_results([build_new_job(rule, source, stamp_of(status), verdict)], snapshot.journal)
            if last is not None and is_unchanged(last, new, snapshot.config.rules):
                return None
            return _explain_new_file(snapshot, rule, new)
        case _:
            return _explain_not_ready(rule, verdict)


def _is_included(rule: Rule, relative: Path) -> bool:
    return NameFilter(rule.include, rule.exclude).is_included(relative.name, relative.as_posix())


def _explain_not_ready(rule: Rule, verdict: Incomplete | Changed | Missing | Unreadable) -> FileExplanation | None:
    match verdict:
        case Incomplete(reason=reason):
            until = f"{rule.settle_timeout:g} s after its last change (settle_timeout) it is decided as it is"
            return FileExplanation(f"{reason}; {until}", "copy all of it; it is looked at again automatically")
        case Unreadable(reason=reason):
            return _explain_unreadable(reason)
        case Changed():
            return FileExplanation("it is being changed", "wait; it is looked at again automatically")
        case Missing():
            return None
        case _:
            assert_never(verdict)


def _explain_unreadable(reason: str) -> FileExplanation:
    advice = "fix its permissions, or ask as the user that picwish-watchd runs as; it is tried again automatically"
    return FileExplanation(f"it cannot be read: {reason}", advice)


def _explain_folder(snapshot: Snapshot, rule: Rule, folder: Path, what: str) -> FileExplanation:
    try:
        os.scandir(folder).close()
    except OSError as error:
        return _explain_unreadable(error.strerror or str(error))
    if not rule.recursive and folder != rule.inbox:
        return FileExplanation(
            "it is a subfolder, and recursive is false: nothing in it is taken", "set recursive: true"
        )
    blocker = snapshot.find_watch_blocker(rule)
    advice = "ask for a file in it; `picwish-watchd plan` shows what is to be done"
    return (
        FileExplanation(what, advice)
        if blocker is None
        else FileExplanation(f"{what}; {blocker.reason}", blocker.advice)
    )


def _explain_new_file(snapshot: Snapshot, rule: Rule, new: NewJob) -> FileExplanation:
    """Explain a file that intake would write a job for."""
    if new.problem is not None:
        reason = f"it will be rejected: {new.problem.message}"
        return FileExplanation(reason, "repair the file; one that changes is looked at again automatically")
    advice = _describe_intake(snapshot, rule, f"it is taken within {rule.rescan_interval:g} s")
    if new.result_of is not None:
        return FileExplanation(
            f"it is the result that was at {printable_path(new.result_of)}, and is not sent again", advice
        )
    reason, costs = _describe_cost(snapshot, rule, new)
    submit_blocker = (snapshot.find_flood_blocker(rule) or snapshot.find_submit_blocker(rule)) if costs else None
    if submit_blocker is None:
        return FileExplanation(reason, advice)
    return FileExplanation(
        f"{reason}; it will wait: {submit_blocker.reason}", advice if snapshot.pid is None else submit_blocker.advice
    )


def _describe_cost(snapshot: Snapshot, rule: Rule, new: NewJob) -> tuple[str, bool]:
    """Return what an image without a job will get, in words, and whether that costs anything."""
    first = find_first_job(snapshot.journal, new.sha256, rule, None, snapshot.unresponsive_paths)
    if first is not None and first.state is State.HELD:
        return f"it has no job yet; as a copy of job {first.id}, which is held, it will be held too", False
    if first is not None:
        waits = f", which waits for `picwish-watchd approve {rule.name}`" if snapshot.journal.is_flood(first.id) else ""
        return f"it has no job yet; as a copy it gets the result of job {first.id}{waits}", False
    existing = find_existing_result(rule, new, snapshot.now) if snapshot.is_responsive(rule.outbox) else None
    if isinstance(existing, Path):
        return (
            f"it has no job yet; {printable_path(existing)} is there already, so nothing is sent (if_exists: skip)",
            False,
        )
    return f"it has no job yet; it costs {PRICES[rule.type]} credits", True


def _describe_intake(snapshot: Snapshot, rule: Rule, otherwise: str) -> str:
    blocker = snapshot.find_watch_blocker(rule)
    if blocker is None:
        return otherwise
    return blocker.advice if snapshot.pid is None and blocker.advice else f"{blocker.reason}: {blocker.advice}"


def _find_ignore_reason(snapshot: Snapshot, rule: Rule, relative: Path) -> Ignored | None:
    """Return which part of the path makes the scan ignore the file, and why; None if the scan finds it."""
    names = NameFilter(rule.include, rule.exclude)
    rename = "rename it, or change the rule"
    for depth, part in enumerate(relative.parts, 1):
        subpath, path = "/".join(relative.parts[:depth]), rule.inbox.joinpath(*relative.parts[:depth])
        last = depth == len(relative.parts)
        if (pattern := names.find_ignoring_pattern(part, subpath)) is not None:
            what = "its name" if last else f'the folder "{printable_path(subpath)}"'
            return Ignored(f"{what} matches {pattern}", rename)
        folder, link = os.path.isdir(path), os.path.islink(path)
        included = last and names.is_included(part, subpath)
        if link and not rule.follow_symlinks and not included and (not last or folder):
            return Ignored(
                f'"{printable_path(subpath)}" is a symbolic link, and follow_symlinks is false',
                "set follow_symlinks: true",
            )
        if rule.follow_symlinks and (link or folder) and (target := _find_link_loop(snapshot, rule, path)) is not None:
            return Ignored(
                f'"{printable_path(subpath)}" leads {target}', "put the image itself there instead of a link"
            )
        if not last and not rule.recursive:
            return Ignored("it is in a subfolder, and recursive is false", "set recursive: true")
        if last and not included and not folder:
            status = stat_file(path)
            mode = status.st_mode if isinstance(status, os.stat_result) else 0
            other = f"it is {describe_file_type(mode)}, and " if mode and not stat.S_ISREG(mode) else ""
            return Ignored(f"{other}its name matches no pattern of include", rename)
    return None


def _find_link_loop(snapshot: Snapshot, rule: Rule, path: Path) -> str | None:
    """Return where a link leads if the scan does not follow it; None if it does."""
    real = Path(os.path.realpath(path))
    for folder, target in resolve_paths(forbidden_link_targets(snapshot.config, rule)).items():
        if real.is_relative_to(target):
            return f"into {printable_path(folder)}: files there would be paid for again and again"
    if not os.path.islink(path) or not os.path.isdir(path):
        return None
    inbox, names = Path(os.path.realpath(rule.inbox)), NameFilter(rule.include, rule.exclude)
    if not real.is_relative_to(inbox):
        return None
    if Path(os.path.realpath(path.parent)).is_relative_to(real):
        return "back to a folder above it"
    own = real.relative_to(inbox)
    if any(names.is_ignored(folder.name, folder.as_posix()) for folder in (own, *own.parents)[:-1]):
        return None
    return f"to {printable_path(own)}, which is scanned under its own name"
