"""Judging one file of an inbox, in a thread: image or link, whole or not, within the limits or not."""

from pathlib import Path

from picwish_watchd.config import Api
from picwish_watchd.files.images import Inspected, Limits, inspect
from picwish_watchd.files.links import LinkFound, inspect_link, is_link
from picwish_watchd.files.verdicts import Bad, Changed, Gone, NotWhole, Unreadable

Verdict = Inspected | LinkFound | NotWhole | Bad | Changed | Gone | Unreadable


def judge(path: Path, api: Api, *, follow_symlinks: bool, final: bool) -> Verdict:
    """What the file is. ``final``: its time to come whole is over, a full decode decides and nothing is `NotWhole`."""
    if is_link(path):
        return inspect_link(path, follow_symlinks=follow_symlinks, final=final)
    limits = Limits(max_bytes=api.max_bytes, max_side=api.max_side)
    return inspect(path, limits, follow_symlinks=follow_symlinks, decode=final)
