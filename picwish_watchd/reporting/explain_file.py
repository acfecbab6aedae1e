"""What an inbox makes of what lies at a path: ignored (by what), settling, refused, or taken, and at what cost."""

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
    """The rule ignores it, and why."""

    reason: str
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class FileExplanation:
    """What the rule makes of it."""

    reason: str
    advice: str | None = None


def explain_file(
    scene: Snapshot, rule: Rule, relative: Path, last: Job | None = None
) -> FileExplanation | Ignored | None:
    """What becomes of the file at ``relative`` below the inbox; it is read.

    None where nothing lies there or, given its ``last`` job, where that is about what lies there.
    """
    source = rule.inbox / relative
    found = stat_file(source, follow_symlinks=rule.follow_symlinks)
    if isinstance(found, Missing):
        if not rule.follow_symlinks or not os.path.islink(source):
            return None
        return Ignored("it is a symbolic link that leads nowhere", "mend the link, or remove it")
    if relative == Path():
        return _explain_folder(scene, rule, source, f"it is the inbox of rule {rule.name}")
    ignored = _find_ignore_reason(scene, rule, relative)
    if ignored is not None:
        return ignored
    if isinstance(found, Unreadable):
        return _explain_unreadable(found.reason)
    if stat.S_ISDIR(found.st_mode) and last is None and not _is_included(rule, relative):
        return _explain_folder(scene, rule, source, f"it is a folder that rule {rule.name} looks into")
    still = seconds_unchanged(found, scene.now)
    if still is not None and still < rule.settle:
        told = f"it is settling: last changed {still:.1f} s ago, settle is {rule.settle:g} s"
        return FileExplanation(
            told, _describe_intake(scene, rule, f"it is taken {rule.settle:g} s after its last change")
        )
    verdict = validate_file(source, scene.config.api, rule, final=has_settle_expired(rule, found, scene.now))
    match verdict:
        case ValidImage() | ValidLink() | Rejected():
            [new] = mark_own_results([build_new_job(rule, source, stamp_of(found), verdict)], scene.journal)
            if last is not None and is_unchanged(last, new, scene.config.rules):
                return None
            return _explain_new_file(scene, rule, new)
        case _:
            return _explain_not_ready(rule, verdict)


def _is_included(rule: Rule, relative: Path) -> bool:
    return NameFilter(rule.include, rule.exclude).is_included(relative.name, relative.as_posix())


def _explain_not_ready(rule: Rule, verdict: Incomplete | Changed | Missing | Unreadable) -> FileExplanation | None:
    match verdict:
        case Incomplete(reason=reason):
            told = f"{reason}; {rule.settle_timeout:g} s after its last change (settle_timeout) it is decided as it is"
            return FileExplanation(told, "copy it to its end; it is looked at again by itself")
        case Unreadable(reason=reason):
            return _explain_unreadable(reason)
        case Changed():
            return FileExplanation("it is just being changed", "wait; it is looked at again by itself")
        case Missing():
            return None
        case _:
            assert_never(verdict)


def _explain_unreadable(reason: str) -> FileExplanation:
    advice = "mend its permissions, or ask as the user that picwish-watchd runs as; it is tried again by itself"
    return FileExplanation(f"it cannot be read: {reason}", advice)


def _explain_folder(scene: Snapshot, rule: Rule, folder: Path, what: str) -> FileExplanation:
    try:
        os.scandir(folder).close()
    except OSError as error:
        return _explain_unreadable(error.strerror or str(error))
    if not rule.recursive and folder != rule.inbox:
        return FileExplanation(
            "it is a subfolder, and recursive is false: nothing in it is taken", "set recursive: true"
        )
    stop = scene.find_watch_blocker(rule)
    asking = "ask for a file in it; `picwish-watchd plan` tells what is to be done"
    return FileExplanation(what, asking) if stop is None else FileExplanation(f"{what}; {stop.reason}", stop.advice)


def _explain_new_file(scene: Snapshot, rule: Rule, new: NewJob) -> FileExplanation:
    """A file that intake would write down."""
    if new.problem is not None:
        told = f"it will be rejected: {new.problem.message}"
        return FileExplanation(told, "mend the file; one that changes is looked at again by itself")
    advice = _describe_intake(scene, rule, f"it is taken within {rule.rescan_interval:g} s")
    if new.result_of is not None:
        return FileExplanation(
            f"it is the result that stood at {printable_path(new.result_of)}, and is not sent again", advice
        )
    told, costs = _describe_cost(scene, rule, new)
    shut = (scene.find_flood_blocker(rule) or scene.find_submit_blocker(rule)) if costs else None
    if shut is None:
        return FileExplanation(told, advice)
    return FileExplanation(f"{told}; it will wait: {shut.reason}", advice if scene.pid is None else shut.advice)


def _describe_cost(scene: Snapshot, rule: Rule, new: NewJob) -> tuple[str, bool]:
    """What an image without a job will get, in words, and whether that costs anything."""
    first = find_first_job(scene.journal, new.sha256, rule, None, scene.unresponsive_paths)
    if first is not None and first.state is State.HELD:
        return f"it has no job yet; as a copy of job {first.id}, which is held, it will be held too", False
    if first is not None:
        waits = f", which waits for `picwish-watchd approve {rule.name}`" if scene.journal.is_flood(first.id) else ""
        return f"it has no job yet; as a copy it gets the result of job {first.id}{waits}", False
    there = find_existing_result(rule, new, scene.now) if scene.is_responsive(rule.outbox) else None
    if isinstance(there, Path):
        return (
            f"it has no job yet; {printable_path(there)} is there already, so nothing is sent (if_exists: skip)",
            False,
        )
    return f"it has no job yet; it costs {PRICES[rule.type]} credits", True


def _describe_intake(scene: Snapshot, rule: Rule, otherwise: str) -> str:
    stop = scene.find_watch_blocker(rule)
    if stop is None:
        return otherwise
    return stop.advice if scene.pid is None and stop.advice else f"{stop.reason}: {stop.advice}"


def _find_ignore_reason(scene: Snapshot, rule: Rule, relative: Path) -> Ignored | None:
    """Which part of the path, and what about it, keeps the walk from it."""
    names = NameFilter(rule.include, rule.exclude)
    rename = "rename it, or change the rule"
    for depth, part in enumerate(relative.parts, 1):
        below, here = "/".join(relative.parts[:depth]), rule.inbox.joinpath(*relative.parts[:depth])
        last = depth == len(relative.parts)
        if (pattern := names.find_ignoring_pattern(part, below)) is not None:
            what = "its name" if last else f'the folder "{printable_path(below)}"'
            return Ignored(f"{what} matches {pattern}", rename)
        folder, link = os.path.isdir(here), os.path.islink(here)
        takes = last and names.is_included(part, below)
        if link and not rule.follow_symlinks and not takes and (not last or folder):
            return Ignored(
                f'"{printable_path(below)}" is a symbolic link, and follow_symlinks is false',
                "set follow_symlinks: true",
            )
        if rule.follow_symlinks and (link or folder) and (circle := _find_link_loop(scene, rule, here)) is not None:
            return Ignored(
                f'"{printable_path(below)}" leads {circle}', "put the picture itself there instead of a link"
            )
        if not last and not rule.recursive:
            return Ignored("it lies in a subfolder, and recursive is false", "set recursive: true")
        if last and not takes and not folder:
            kind = stat_file(here)
            mode = kind.st_mode if isinstance(kind, os.stat_result) else 0
            other = f"it is {describe_file_type(mode)}, and " if mode and not stat.S_ISREG(mode) else ""
            return Ignored(f"{other}its name matches no pattern of include", rename)
    return None


def _find_link_loop(scene: Snapshot, rule: Rule, here: Path) -> str | None:
    """Where a link leads that no walk goes."""
    real = Path(os.path.realpath(here))
    for folder, place in resolve_paths(forbidden_link_targets(scene.config, rule)).items():
        if real.is_relative_to(place):
            return f"into {printable_path(folder)}: what lies there would be bought in a circle"
    if not os.path.islink(here) or not os.path.isdir(here):
        return None
    inbox, names = Path(os.path.realpath(rule.inbox)), NameFilter(rule.include, rule.exclude)
    if not real.is_relative_to(inbox):
        return None
    if Path(os.path.realpath(here.parent)).is_relative_to(real):
        return "back to a folder above it"
    own = real.relative_to(inbox)
    if any(names.is_ignored(each.name, each.as_posix()) for each in (own, *own.parents)[:-1]):
        return None
    return f"to {printable_path(own)}, which is looked into by its own name"
