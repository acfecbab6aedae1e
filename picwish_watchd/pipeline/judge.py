"""Judging one file of an inbox, in a thread: image or link, whole or not, within the limits or not."""

from pathlib import Path

from picwish_watchd.config import Api, Oversize, Rule
from picwish_watchd.files.images import Inspected, Limits, inspect
from picwish_watchd.files.links import LinkFound, inspect_link, is_link
from picwish_watchd.files.verdicts import Bad, Changed, Gone, NotWhole, Unreadable

Verdict = Inspected | LinkFound | NotWhole | Bad | Changed | Gone | Unreadable


def judge(path: Path, api: Api, rule: Rule, *, final: bool) -> Verdict:
    """What the file is. ``final``: its time to come whole is over, a full decode decides and nothing is `NotWhole`."""
    follow_symlinks = rule.follow_symlinks
    if is_link(path):
        return inspect_link(path, follow_symlinks=follow_symlinks, final=final)
    return inspect(path, limits_of(api, rule), follow_symlinks=follow_symlinks, decode=final)


def limits_of(api: Api, rule: Rule) -> Limits:
    """What PicWish takes, and whether the rule wants what is larger made smaller."""
    return Limits(max_bytes=api.max_bytes, max_side=api.max_side, fitting=rule.oversize is Oversize.DOWNSCALE)
