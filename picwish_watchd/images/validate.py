"""Judging one file of an inbox: image or link, whole or not, within the limits or not."""

from dataclasses import dataclass
from pathlib import Path

from picwish_watchd.fs.safe_open import stamp_of, stat_file
from picwish_watchd.fs.verdicts import Changed, Incomplete, Missing, Rejected, Unreadable
from picwish_watchd.images.inspect import ImageLimits, ValidImage, inspect_image
from picwish_watchd.images.link_files import ValidLink, inspect_link, is_link_file
from picwish_watchd.job import Stamp

Verdict = ValidImage | ValidLink | Incomplete | Rejected | Changed | Missing | Unreadable
#: What came of a question: a verdict, or the file's stamp where that is another one by now.
ValidationResult = Verdict | Stamp


@dataclass(frozen=True, slots=True)
class ValidationRequest:
    """A file that stood still, and what it is judged by."""

    path: Path
    #: as it was when it stood still
    stamp: Stamp
    limits: ImageLimits
    follow_symlinks: bool
    #: its time to come whole is over: a full decode decides, and nothing is `NotWhole`
    final: bool


def inspect_file(path: Path, limits: ImageLimits, *, follow_symlinks: bool, final: bool) -> Verdict:
    """What the file is; never raises for what is in it. ``final`` as in `Question`."""
    if is_link_file(path):
        return inspect_link(path, follow_symlinks=follow_symlinks, final=final)
    return inspect_image(path, limits, follow_symlinks=follow_symlinks, decode=final)


def validate_request(question: ValidationRequest) -> ValidationResult:
    """What the file is, if it is still as it was when it stood still."""
    found = stat_file(question.path, follow_symlinks=question.follow_symlinks)
    if isinstance(found, (Missing, Unreadable)):
        return found
    if (stamp := stamp_of(found)) != question.stamp:
        return stamp
    return inspect_file(question.path, question.limits, follow_symlinks=question.follow_symlinks, final=question.final)
