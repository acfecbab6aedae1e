"""Fitting an image that is larger than PicWish takes (`oversize: downscale`), in a process of its own.

What is fitted is provably what was judged: the source is copied, hashed on the way, and only a copy of the job's own
hash is handed on. What comes back is looked at as any image is, for the process had to do with a stranger's bytes.
"""

import hashlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from picwish_watchd.fs.safe_open import NotRegularFile, OpenFile, classify_read_error, open_file
from picwish_watchd.fs.verdicts import Changed, Missing, Unreadable
from picwish_watchd.images import downscale_process
from picwish_watchd.images.downscale_process import ExitCode
from picwish_watchd.images.inspect import DOWNSCALE_MAX_PIXELS, ImageLimits, ValidImage, inspect_image
from picwish_watchd.job import ErrorCode, Problem
from picwish_watchd.wording import printable_path

_ABORT_REASON = "picwish-watchd was stopped while the image was made smaller"
# seconds between looks at the process
_POLL_INTERVAL = 0.05
#: All of the environment that it gets, if set: what an interpreter may need to start, and no keys.
_ENV_ALLOWLIST = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH")
#: By which it ends that used more than it may, or more than there is.
_LIMIT_EXIT_CODES = {-signal.SIGXCPU, -signal.SIGKILL}
#: By which somebody stops a service and all its processes: no fault of the image.
_STOP_EXIT_CODES = {-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP}


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """What the process may use. A picture of `images.FIT_PIXELS` with transparency fits in."""

    #: bytes of address space
    memory_bytes: int = 2**31
    #: seconds
    cpu_seconds: int = 120
    #: seconds
    wall_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class DownscaleFailed:
    """It cannot be made smaller, and why: the image's own fault."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class DownscaleDeferred:
    """Another time: the daemon stops, or the spool has no room."""

    reason: str


@dataclass(frozen=True, slots=True)
class DownscaleRequest:
    """A source, and what it was judged as."""

    source: Path
    sha256: str
    #: bytes
    size: int
    #: pixels
    width: int
    #: pixels
    height: int
    #: what PicWish takes
    limits: ImageLimits

    @property
    def has_too_many_pixels(self) -> bool:
        """Whether it has too many pixels for PicWish; else it is the bytes that are too many."""
        return max(self.width, self.height) > self.limits.max_side


def downscale_image(
    order: DownscaleRequest,
    *,
    copy: Path,
    target: Path,
    give_up: Callable[[], bool],
    bounds: ProcessLimits | None = None,
) -> ValidImage | DownscaleFailed | DownscaleDeferred:
    """Makes ``target``, an image within the limits, of a ``copy`` that `copied` made, and that is gone at the end.

    Nothing is at ``target`` before, nor after but where the answer is `Inspected`. ``give_up`` is asked all the while,
    and ends it at once. For a thread: it takes seconds. Raises nothing for what is in the image.
    """
    verdict: ValidImage | DownscaleFailed | DownscaleDeferred
    try:
        verdict = _run_process(order, copy, target, give_up, bounds or ProcessLimits())
    except OSError as error:
        verdict = _classify_spool_error(error)
    with suppress(OSError):
        copy.unlink(missing_ok=True)
        if not isinstance(verdict, ValidImage):
            target.unlink(missing_ok=True)
    return verdict


def copy_source(
    order: DownscaleRequest, copy: Path, *, give_up: Callable[[], bool], follow_symlinks: bool = False
) -> DownscaleDeferred | Changed | Missing | Unreadable | None:
    """Copies the source to ``copy``; None where every byte is one that was judged, else nothing is left.

    For a thread of the inbox, which may hang. ``give_up`` ends it at once.
    """
    verdict: DownscaleDeferred | Changed | Missing | Unreadable | None
    try:
        verdict = _copy_and_verify(order, copy, give_up, follow_symlinks=follow_symlinks)
    except OSError as error:
        verdict = _classify_spool_error(error)
    if verdict is not None:
        with suppress(OSError):
            copy.unlink(missing_ok=True)
    return verdict


def _classify_spool_error(error: OSError) -> DownscaleDeferred:
    return DownscaleDeferred(f"the spool cannot take it: {error.strerror or error}")


def _copy_and_verify(
    order: DownscaleRequest, copy: Path, give_up: Callable[[], bool], *, follow_symlinks: bool
) -> DownscaleDeferred | Changed | Missing | Unreadable | None:
    opened = open_file(order.source, follow_symlinks=follow_symlinks)
    if isinstance(opened, NotRegularFile):
        return Changed()
    if not isinstance(opened, OpenFile):
        return opened
    digest = hashlib.sha256()
    with opened, _create_private_file(copy) as file:
        if opened.size != order.size:
            return Changed()
        blocks = opened.iter_blocks()
        while True:
            if give_up():
                return DownscaleDeferred(_ABORT_REASON)
            try:
                block = next(blocks, b"")
            except OSError as error:
                return classify_read_error(error)
            if not block:
                break
            digest.update(block)
            file.write(block)
    return None if digest.hexdigest() == order.sha256 else Changed()


def _create_private_file(path: Path) -> io.BufferedWriter:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def _run_process(
    order: DownscaleRequest, copy: Path, target: Path, give_up: Callable[[], bool], bounds: ProcessLimits
) -> ValidImage | DownscaleFailed | DownscaleDeferred:
    limits = order.limits
    numbers = (
        limits.max_side,
        limits.max_bytes,
        DOWNSCALE_MAX_PIXELS,
        bounds.memory_bytes,
        bounds.cpu_seconds,
        os.getpid(),
    )
    with copy.open("rb") as source, _create_private_file(target) as sink:
        child = subprocess.Popen(  # noqa: S603 - our own interpreter and file, and numbers
            # -P: a module named like one of ours or Pillow's, in this or the current folder, must not be imported
            [sys.executable, "-P", downscale_process.__file__, *map(str, numbers)],
            stdin=source,
            stdout=sink,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            env={name: os.environ[name] for name in _ENV_ALLOWLIST if name in os.environ},
        )
    code = _wait_for_exit(child, give_up, bounds.wall_seconds)
    if code is None or code in _STOP_EXIT_CODES or code == ExitCode.ORPHANED:
        return DownscaleDeferred(_ABORT_REASON)
    if code != ExitCode.DOWNSCALED:
        return (
            DownscaleDeferred("there is no room in the spool")
            if code == ExitCode.NOT_WRITTEN
            else _explain_failure(order, code, bounds)
        )
    made = inspect_image(target, limits)
    return made if isinstance(made, ValidImage) else _explain_failure(order, -signal.SIGABRT, bounds)


def _wait_for_exit(child: "subprocess.Popen[bytes]", give_up: Callable[[], bool], wall: float) -> int | None:
    """Its exit code, that of SIGXCPU if it took too long; None if it was given up. It has ended in any case."""
    until = time.monotonic() + wall
    try:
        while not give_up():
            try:
                return child.wait(_POLL_INTERVAL)
            except subprocess.TimeoutExpired:
                if time.monotonic() > until:
                    return -signal.SIGXCPU
        return None
    finally:
        child.kill()
        child.wait()


def _explain_failure(order: DownscaleRequest, code: int, bounds: ProcessLimits) -> DownscaleFailed:
    name, size = printable_path(order.source.name), f"{order.width} x {order.height} pixels"
    word = ErrorCode.RESOLUTION_TOO_HIGH if order.has_too_many_pixels else ErrorCode.FILE_TOO_LARGE
    match code:
        case ExitCode.TRUNCATED | ExitCode.CORRUPT:
            word = ErrorCode.TRUNCATED if code == ExitCode.TRUNCATED else ErrorCode.CORRUPT
            return DownscaleFailed(
                Problem(word, f"{name} is {word.value}: it cannot be decoded; copy or export it again")
            )
        case ExitCode.NO_MEMORY:
            why = f"that takes more than {bounds.memory_bytes / 2**30:g} GiB of memory"
        case _ if code in _LIMIT_EXIT_CODES:
            why = f"the process that tried was stopped, after {bounds.cpu_seconds} s of computing or for want of memory"
        case ExitCode.UNSUPPORTED_PIXELS:
            why = "its pixels are neither 8 nor 16 bits of grey, RGB or CMYK"
        case ExitCode.NOTHING_FITS:
            why = f"nothing that looks like it fits into {order.limits.max_bytes} bytes"
        case ExitCode.TOO_MANY_PIXELS:
            why = f"it holds more than {DOWNSCALE_MAX_PIXELS // 10**6} million pixels"
        case _:
            why = "the process that tried broke down over it"
    return DownscaleFailed(
        Problem(word, f"{name} has {size} and could not be made smaller: {why}; make it smaller first")
    )
