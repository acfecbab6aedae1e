"""Judging one file of an inbox: image or link, whole or not, within the limits or not."""

from dataclasses import dataclass
from pathlib import Path

from picwish_watchd.fs.safe_open import look, stamp_of
from picwish_watchd.fs.verdicts import Bad, Changed, Gone, NotWhole, Unreadable
from picwish_watchd.images.inspect import Inspected, Limits, inspect
from picwish_watchd.images.link_files import LinkFound, inspect_link, is_link
from picwish_watchd.job import Stamp

Verdict = Inspected | LinkFound | NotWhole | Bad | Changed | Gone | Unreadable
#: What came of a question: a verdict, or the file's stamp where that is another one by now.
Answer = Verdict | Stamp


@dataclass(frozen=True, slots=True)
class Question:
    """A file that stood still, and what it is judged by."""

    path: Path
    stamp: Stamp  #: as it was when it stood still
    limits: Limits
    follow_symlinks: bool
    final: bool  #: its time to come whole is over: a full decode decides, and nothing is `NotWhole`


def judge(path: Path, limits: Limits, *, follow_symlinks: bool, final: bool) -> Verdict:
    """What the file is; never raises for what is in it. ``final`` as in `Question`."""
    if is_link(path):
        return inspect_link(path, follow_symlinks=follow_symlinks, final=final)
    return inspect(path, limits, follow_symlinks=follow_symlinks, decode=final)


def answer(question: Question) -> Answer:
    """What the file is, if it is still as it was when it stood still."""
    found = look(question.path, follow_symlinks=question.follow_symlinks)
    if isinstance(found, (Gone, Unreadable)):
        return found
    if (stamp := stamp_of(found)) != question.stamp:
        return stamp
    return judge(question.path, question.limits, follow_symlinks=question.follow_symlinks, final=question.final)
