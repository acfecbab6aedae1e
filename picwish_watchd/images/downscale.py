"""Make an image smaller that is larger than PicWish accepts (`oversize: downscale`), in a separate process.

The image that is made smaller is the one that was validated: the source is copied and hashed, and only a copy with the
job's hash is passed on. The output is validated like any image, because the process has decoded untrusted bytes.
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
#: Seconds between checks of the process.
_POLL_INTERVAL = 0.05
#: The environment variables that the process gets: what an interpreter may need to start, and no keys.
_ENV_ALLOWLIST = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH")
#: Exit codes of a process that used more than it may, or more memory than there is.
_LIMIT_EXIT_CODES = {-signal.SIGXCPU, -signal.SIGKILL}
#: Exit codes of a process stopped together with the service: no fault of the image.
_STOP_EXIT_CODES = {-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP}


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """The resources that the process may use; enough for `DOWNSCALE_MAX_PIXELS` with transparency."""

    #: Bytes of address space.
    memory_bytes: int = 2**31
    #: Seconds.
    cpu_seconds: int = 120
    #: Seconds.
    wall_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class DownscaleFailed:
    """The image cannot be made smaller because of what it is."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class DownscaleDeferred:
    """Not now: the daemon stops, or the spool has no room. Try again later."""

    reason: str


@dataclass(frozen=True, slots=True)
class DownscaleRequest:
    """A source, and the facts that validation found."""

    source: Path
    sha256: str
    #: Bytes.
    size: int
    #: Pixels.
    width: int
    #: Pixels.
    height: int
    #: What PicWish accepts.
    limits: ImageLimits

    @property
    def has_too_many_pixels(self) -> bool:
        """Whether it has too many pixels for PicWish; otherwise it has too many bytes."""
        return max(self.width, self.height) > self.limits.max_side


def downscale_image(
    request: DownscaleRequest,
    *,
    copy: Path,
    target: Path,
    give_up: Callable[[], bool],
    bounds: ProcessLimits | None = None,
) -> ValidImage | DownscaleFailed | DownscaleDeferred:
    """Make ``target``, an image within the limits, from a ``copy`` that `copy_source` made; remove the copy.

    ``target`` must not exist before, and exists afterwards only if the result is `ValidImage`. ``give_up`` is called
    repeatedly; once it returns True, the process is ended. This takes seconds and is for a thread. The content of the
    image never makes it raise.
    """
    verdict: ValidImage | DownscaleFailed | DownscaleDeferred
    try:
        verdict = _run_process(request, copy, target, give_up, bounds or ProcessLimits())
    except OSError as error:
        verdict = _classify_spool_error(error)
    with suppress(OSError):
        copy.unlink(missing_ok=True)
        if not isinstance(verdict, ValidImage):
            target.unlink(missing_ok=True)
    return verdict


def copy_source(
    request: DownscaleRequest, copy: Path, *, give_up: Callable[[], bool], follow_symlinks: bool = False
) -> DownscaleDeferred | Changed | Missing | Unreadable | None:
    """Copy the source to ``copy``; return None if its bytes are those that were validated.

    Otherwise no copy is left. This may hang with the inbox and is for a worker thread. Once ``give_up`` returns True,
    it stops.
    """
    verdict: DownscaleDeferred | Changed | Missing | Unreadable | None
    try:
        verdict = _copy_and_verify(request, copy, give_up, follow_symlinks=follow_symlinks)
    except OSError as error:
        verdict = _classify_spool_error(error)
    if verdict is not None:
        with suppress(OSError):
            copy.unlink(missing_ok=True)
    return verdict


def _classify_spool_error(error: OSError) -> DownscaleDeferred:
    return DownscaleDeferred(f"the spool cannot take it: {error.strerror or error}")


def _copy_and_verify(
    request: DownscaleRequest, copy: Path, give_up: Callable[[], bool], *, follow_symlinks: bool
) -> DownscaleDeferred | Changed | Missing | Unreadable | None:
    opened = open_file(request.source, follow_symlinks=follow_symlinks)
    if isinstance(opened, NotRegularFile):
        return Changed()
    if not isinstance(opened, OpenFile):
        return opened
    digest = hashlib.sha256()
    with opened, _create_private_file(copy) as file:
        if opened.size != request.size:
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
    return None if digest.hexdigest() == request.sha256 else Changed()


def _create_private_file(path: Path) -> io.BufferedWriter:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def _run_process(
    request: DownscaleRequest, copy: Path, target: Path, give_up: Callable[[], bool], bounds: ProcessLimits
) -> ValidImage | DownscaleFailed | DownscaleDeferred:
    limits = request.limits
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
            # -P: no module from this or the current folder may be imported in place of one of Pillow.
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
            else _explain_failure(request, code, bounds)
        )
    verdict = inspect_image(target, limits)
    return verdict if isinstance(verdict, ValidImage) else _explain_failure(request, -signal.SIGABRT, bounds)


def _wait_for_exit(child: "subprocess.Popen[bytes]", give_up: Callable[[], bool], wall: float) -> int | None:
    """Wait for the process; return its exit code, or None if ``give_up`` returned True. It has ended in any case.

    After ``wall`` seconds it is killed, and the code is that of SIGXCPU.
    """
    deadline = time.monotonic() + wall
    try:
        while not give_up():
            try:
                return child.wait(_POLL_INTERVAL)
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    return -signal.SIGXCPU
        return None
    finally:
        child.kill()
        child.wait()


def _explain_failure(request: DownscaleRequest, code: int, bounds: ProcessLimits) -> DownscaleFailed:
    name, size = printable_path(request.source.name), f"{request.width} x {request.height} pixels"
    word = ErrorCode.RESOLUTION_TOO_HIGH if request.has_too_many_pixels else ErrorCode.FILE_TOO_LARGE
    match code:
        case ExitCode.TRUNCATED | ExitCode.CORRUPT:
            word = ErrorCode.TRUNCATED if code == ExitCode.TRUNCATED else ErrorCode.CORRUPT
            return DownscaleFailed(
                Problem(word, f"{name} is {word.value}: it cannot be decoded; copy or export it again")
            )
        case ExitCode.NO_MEMORY:
            why = f"that takes more than {bounds.memory_bytes / 2**30:g} GiB of memory"
        case _ if code in _LIMIT_EXIT_CODES:
            why = f"the process that tried was stopped, after {bounds.cpu_seconds} s of computing or for lack of memory"
        case ExitCode.UNSUPPORTED_PIXELS:
            why = "its pixels are neither 8 nor 16 bits of grey, RGB or CMYK"
        case ExitCode.NOTHING_FITS:
            why = f"nothing that looks like it fits into {request.limits.max_bytes} bytes"
        case ExitCode.TOO_MANY_PIXELS:
            why = f"it holds more than {DOWNSCALE_MAX_PIXELS // 10**6} million pixels"
        case _:
            why = "the process that tried broke down over it"
    return DownscaleFailed(
        Problem(word, f"{name} has {size} and could not be made smaller: {why}; make it smaller first")
    )
