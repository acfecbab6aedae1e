"""Judging one file of an inbox by the settings of its rule."""

from pathlib import Path

from picwish_watchd.config import Api, Oversize, Rule
from picwish_watchd.files import judging
from picwish_watchd.files.images import Limits
from picwish_watchd.files.judging import Verdict


def judge(path: Path, api: Api, rule: Rule, *, final: bool) -> Verdict:
    """What the file is. ``final``: its time to come whole is over, a full decode decides and nothing is `NotWhole`."""
    return judging.judge(path, limits_of(api, rule), follow_symlinks=rule.follow_symlinks, final=final)


def limits_of(api: Api, rule: Rule) -> Limits:
    """What PicWish takes, and whether the rule wants what is larger made smaller."""
    return Limits(max_bytes=api.max_bytes, max_side=api.max_side, fitting=rule.oversize is Oversize.DOWNSCALE)
