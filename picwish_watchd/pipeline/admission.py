"""Judging one file of an inbox: what it is by the settings of its rule, what is written down about it, if it is news.

The intake does so, and `why` and `plan`, which change nothing.
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
    """What the file is. ``final``: its time to come whole is over, a full decode decides and nothing is `NotWhole`."""
    return validate.inspect_file(path, image_limits(api, rule), follow_symlinks=rule.follow_symlinks, final=final)


def image_limits(api: Api, rule: Rule) -> ImageLimits:
    """What PicWish takes, and whether the rule wants what is larger made smaller."""
    return ImageLimits(
        max_bytes=api.max_bytes, max_side=api.max_side, allow_downscale=rule.oversize is Oversize.DOWNSCALE
    )


def build_new_job(rule: Rule, path: Path, stamp: Stamp, verdict: ValidImage | ValidLink | Rejected) -> NewJob:
    """What is written down about a file of ``rule`` that was judged so."""
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
        case ValidImage(format=kind, width=width, height=height, sha256=sha256):
            return new(format=kind, width=width, height=height, sha256=sha256)
        case ValidLink(url=url, sha256=sha256):
            return new(kind=SourceKind.LINK, url=url, sha256=sha256)
        case Rejected(problem=problem):
            moving = rule.on_failure is OnFailure.MOVE
            return new(problem=problem, original=OriginalStatus.WAITING if moving else OriginalStatus.PRESENT)


def is_unchanged(last: Job | None, new: NewJob, rules: Sequence[Rule]) -> bool:
    """Whether the file was only touched, and holds what ``last``, the newest job of its path, was about."""
    if last is None or last.original in (OriginalStatus.MOVED, OriginalStatus.DELETED, OriginalStatus.REPLACED):
        return False
    # the inbox of a rule that was only renamed is not bought again, and what is under way never is
    others = any(rule.name == last.rule for rule in rules) and last.rule != new.rule
    if others and last.state not in (*UNFINISHED, State.HELD):
        return False
    return _is_same_content(last, new)


def _is_same_content(last: Job, new: NewJob) -> bool:
    if last.problem is not None and last.state is State.REJECTED:
        if last.problem.code in (ErrorCode.SOURCE_CHANGED, ErrorCode.SOURCE_MISSING):
            return False
        if new.problem is not None:
            return last.problem.code is new.problem.code and last.stamp.size == new.stamp.size
    return new.problem is None and last.sha256 == new.sha256 and last.kind is new.kind


def seconds_unchanged(found: os.stat_result, now: float) -> float | None:
    """For how many seconds the file has not changed; None where the file system's clock is ahead of ours.

    A copy that keeps the time of its original (`cp -p`) still changed when it was made: st_ctime.
    """
    age = now - max(found.st_mtime, found.st_ctime)
    return age if age >= 0 else None


def has_settle_expired(rule: Rule, found: os.stat_result, now: float) -> bool:
    """Whether the file has had its time to come whole."""
    return (seconds_unchanged(found, now) or 0.0) >= max(rule.settle, rule.settle_timeout)


def forbidden_link_targets(config: "Config", rule: "Rule") -> tuple[Path, ...]:
    """Folders that no link in the rule's inbox may lead into: what is found there would be bought in a circle."""
    written = [folder for each in config.rules for folder in (each.outbox, each.archive, each.failed) if folder]
    others = [each.inbox for each in config.rules if each.name != rule.name]
    return (*written, *others, spool_folder(config.journal))
