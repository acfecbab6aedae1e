"""Decide on one file of an inbox: whether it is valid for its rule, which job it becomes, and whether it is new.

Used by the intake, and by `why` and `plan`, which change nothing.
"""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from picwish_watchd.config.model import Config
from picwish_watchd.config.schema import Api, OnFailure, Oversize, Rule
from picwish_watchd.fs.verdicts import Rejected
from picwish_watchd.images import validate
from picwish_watchd.images.inspect import ImageLimits, ValidImage
from picwish_watchd.images.link_files import ValidLink
from picwish_watchd.images.validate import Verdict
from picwish_watchd.job import UNFINISHED, ErrorCode, Job, NewJob, OriginalStatus, SourceKind, Stamp, State
from picwish_watchd.outbox.spool import spool_folder


def validate_file(path: Path, api: Api, rule: Rule, *, final: bool) -> Verdict:
    """Return the verdict on the file at ``path``.

    With ``final``, its time to become complete is over: a full decode decides, and the verdict is never `Incomplete`.
    """
    return validate.inspect_file(path, image_limits(api, rule), follow_symlinks=rule.follow_symlinks, final=final)


def image_limits(api: Api, rule: Rule) -> ImageLimits:
    """Return PicWish's limits (bytes and pixels), and whether ``rule`` has larger images downscaled."""
    return ImageLimits(
        max_bytes=api.max_bytes, max_side=api.max_side, allow_downscale=rule.oversize is Oversize.DOWNSCALE
    )


def build_new_job(rule: Rule, path: Path, stamp: Stamp, verdict: ValidImage | ValidLink | Rejected) -> NewJob:
    """Return the job for the file at ``path``, an absolute path in the inbox of ``rule``, with this verdict."""
    new = partial(
        NewJob,
        rule=rule.name,
        source=path,
        relative=path.relative_to(rule.inbox),
        stamp=stamp,
        type=rule.type,
        return_type=rule.return_type,
        sync=rule.sync,
    )
    match verdict:
        case ValidImage(format=image_format, width=width, height=height, sha256=sha256):
            return new(format=image_format, width=width, height=height, sha256=sha256)
        case ValidLink(url=url, sha256=sha256):
            return new(kind=SourceKind.LINK, url=url, sha256=sha256)
        case Rejected(problem=problem):
            moving = rule.on_failure is OnFailure.MOVE
            return new(problem=problem, original=OriginalStatus.WAITING if moving else OriginalStatus.PRESENT)


def is_unchanged(last: Job | None, new: NewJob, rules: Sequence[Rule]) -> bool:
    """Return whether the file still has the content of ``last``, the newest job of its path, so it needs no new job."""
    if last is None or last.original in (OriginalStatus.MOVED, OriginalStatus.DELETED, OriginalStatus.REPLACED):
        return False
    # The images of a rule that was only renamed are not paid again, and unfinished ones never are.
    is_other_rule = any(rule.name == last.rule for rule in rules) and last.rule != new.rule
    if is_other_rule and last.state not in (*UNFINISHED, State.HELD):
        return False
    return _is_same_content(last, new)


def _is_same_content(last: Job, new: NewJob) -> bool:
    if last.problem is not None and last.state is State.REJECTED:
        if last.problem.code in (ErrorCode.SOURCE_CHANGED, ErrorCode.SOURCE_MISSING):
            return False
        if new.problem is not None:
            return last.problem.code is new.problem.code and last.stamp.size == new.stamp.size
    return new.problem is None and last.sha256 == new.sha256 and last.kind is new.kind


def seconds_unchanged(status: os.stat_result, now: float) -> float | None:
    """Return for how many seconds the file has not changed; None if the file system's clock is ahead of ours.

    st_ctime counts as well: a copy that keeps the st_mtime of its original (`cp -p`) changed when it was made.
    """
    age = now - max(status.st_mtime, status.st_ctime)
    return age if age >= 0 else None


def has_settle_expired(rule: Rule, status: os.stat_result, now: float) -> bool:
    """Return whether the file's time to become complete is over."""
    return (seconds_unchanged(status, now) or 0.0) >= max(rule.settle, rule.settle_timeout)


def forbidden_link_targets(config: Config, rule: Rule) -> tuple[Path, ...]:
    """Return the folders that no link in the rule's inbox may lead into.

    These are the folders that picwish-watchd writes to, whose images would be submitted again without end, and the
    inboxes of other rules.
    """
    output_folders = [folder for each in config.rules for folder in (each.outbox, each.archive, each.failed) if folder]
    other_inboxes = [each.inbox for each in config.rules if each.name != rule.name]
    return (*output_folders, *other_inboxes, spool_folder(config.journal))
