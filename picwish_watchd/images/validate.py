"""Validate one file of an inbox: an image or a link, complete or not, within the limits or not."""

from dataclasses import dataclass
from pathlib import Path

from picwish_watchd.fs.safe_open import stamp_of, stat_file
from picwish_watchd.fs.verdicts import Changed, Incomplete, Missing, Rejected, Unreadable
from picwish_watchd.images.inspect import ImageLimits, ValidImage, inspect_image
from picwish_watchd.images.link_files import ValidLink, inspect_link, is_link_file
from picwish_watchd.job import Stamp

Verdict = ValidImage | ValidLink | Incomplete | Rejected | Changed | Missing | Unreadable
#: The verdict, or the present stamp of the file if that has changed.
ValidationResult = Verdict | Stamp


@dataclass(frozen=True, slots=True)
class ValidationRequest:
    """A file that has settled, and how to validate it."""

    path: Path
    #: Its stamp when it had settled.
    stamp: Stamp
    limits: ImageLimits
    follow_symlinks: bool
    #: `settle_timeout` is over: a full decode decides, and the verdict is never `Incomplete`.
    final: bool


def inspect_file(path: Path, limits: ImageLimits, *, follow_symlinks: bool, final: bool) -> Verdict:
    """Return the verdict on a file; its content never makes this raise. ``final`` as in `ValidationRequest`."""
    if is_link_file(path):
        return inspect_link(path, follow_symlinks=follow_symlinks, final=final)
    return inspect_image(path, limits, follow_symlinks=follow_symlinks, decode=final)


def validate_request(request: ValidationRequest) -> ValidationResult:
    """Return the verdict on the file, or its stamp if that is not the one of the request."""
    status = stat_file(request.path, follow_symlinks=request.follow_symlinks)
    if isinstance(status, (Missing, Unreadable)):
        return status
    if (stamp := stamp_of(status)) != request.stamp:
        return stamp
    return inspect_file(request.path, request.limits, follow_symlinks=request.follow_symlinks, final=request.final)
