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

from picwish_watchd.fs.safe_open import NotAFile, OpenFile, missing_or_unreadable, open_file
from picwish_watchd.fs.verdicts import Changed, Gone, Unreadable
from picwish_watchd.images import downscale_process
from picwish_watchd.images.downscale_process import Ending
from picwish_watchd.images.inspect import FIT_PIXELS, Inspected, Limits, inspect
from picwish_watchd.job import ErrorCode, Problem
from picwish_watchd.wording import shown

_GIVEN_UP = "picwish-watchd was stopped while the image was made smaller"
_GLANCE = 0.05  # seconds between looks at the process
#: All of the environment that it gets, if set: what an interpreter may need to start, and no keys.
_ENVIRON = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH")
#: By which it ends that used more than it may, or more than there is.
_OVERSPENT = {-signal.SIGXCPU, -signal.SIGKILL}
#: By which somebody stops a service and all its processes: no fault of the image.
_STOPPED = {-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the process may use. A picture of `images.FIT_PIXELS` with transparency fits in."""

    memory: int = 2**31  #: bytes of address space
    cpu: int = 120  #: seconds
    wall: float = 600.0  #: seconds


@dataclass(frozen=True, slots=True)
class Unfit:
    """It cannot be made smaller, and why: the image's own fault."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class NotNow:
    """Another time: the daemon stops, or the spool has no room."""

    reason: str


@dataclass(frozen=True, slots=True)
class Order:
    """A source, and what it was judged as."""

    source: Path
    sha256: str
    size: int  #: bytes
    width: int  #: pixels
    height: int  #: pixels
    limits: Limits  #: what PicWish takes

    @property
    def too_wide(self) -> bool:
        """Whether it has too many pixels for PicWish; else it is the bytes that are too many."""
        return max(self.width, self.height) > self.limits.max_side


def fit(
    order: Order,
    *,
    copy: Path,
    target: Path,
    give_up: Callable[[], bool],
    bounds: Bounds | None = None,
) -> Inspected | Unfit | NotNow:
    """Makes ``target``, an image within the limits, of a ``copy`` that `copied` made, and that is gone at the end.

    Nothing is at ``target`` before, nor after but where the answer is `Inspected`. ``give_up`` is asked all the while,
    and ends it at once. For a thread: it takes seconds. Raises nothing for what is in the image.
    """
    verdict: Inspected | Unfit | NotNow
    try:
        verdict = _shrunk(order, copy, target, give_up, bounds or Bounds())
    except OSError as error:
        verdict = _no_room(error)
    with suppress(OSError):
        copy.unlink(missing_ok=True)
        if not isinstance(verdict, Inspected):
            target.unlink(missing_ok=True)
    return verdict


def copied(
    order: Order, copy: Path, *, give_up: Callable[[], bool], follow_symlinks: bool = False
) -> NotNow | Changed | Gone | Unreadable | None:
    """Copies the source to ``copy``; None where every byte is one that was judged, else nothing is left.

    For a thread of the inbox, which may hang. ``give_up`` ends it at once.
    """
    verdict: NotNow | Changed | Gone | Unreadable | None
    try:
        verdict = _copied(order, copy, give_up, follow_symlinks=follow_symlinks)
    except OSError as error:
        verdict = _no_room(error)
    if verdict is not None:
        with suppress(OSError):
            copy.unlink(missing_ok=True)
    return verdict


def _no_room(error: OSError) -> NotNow:
    return NotNow(f"the spool cannot take it: {error.strerror or error}")


def _copied(
    order: Order, copy: Path, give_up: Callable[[], bool], *, follow_symlinks: bool
) -> NotNow | Changed | Gone | Unreadable | None:
    opened = open_file(order.source, follow_symlinks=follow_symlinks)
    if isinstance(opened, NotAFile):
        return Changed()
    if not isinstance(opened, OpenFile):
        return opened
    digest = hashlib.sha256()
    with opened, _private(copy) as file:
        if opened.size != order.size:
            return Changed()
        blocks = opened.blocks()
        while True:
            if give_up():
                return NotNow(_GIVEN_UP)
            try:
                block = next(blocks, b"")
            except OSError as error:
                return missing_or_unreadable(error)
            if not block:
                break
            digest.update(block)
            file.write(block)
    return None if digest.hexdigest() == order.sha256 else Changed()


def _private(path: Path) -> io.BufferedWriter:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def _shrunk(
    order: Order, copy: Path, target: Path, give_up: Callable[[], bool], bounds: Bounds
) -> Inspected | Unfit | NotNow:
    limits = order.limits
    numbers = (limits.max_side, limits.max_bytes, FIT_PIXELS, bounds.memory, bounds.cpu, os.getpid())
    with copy.open("rb") as source, _private(target) as sink:
        child = subprocess.Popen(  # noqa: S603 - our own interpreter and file, and numbers
            # -P: a module named like one of ours or Pillow's, in this or the current folder, must not be imported
            [sys.executable, "-P", downscale_process.__file__, *map(str, numbers)],
            stdin=source, stdout=sink, stderr=subprocess.DEVNULL, cwd="/", start_new_session=True,
            env={name: os.environ[name] for name in _ENVIRON if name in os.environ},
        )  # fmt: skip
    code = _ended(child, give_up, bounds.wall)
    if code is None or code in _STOPPED or code == Ending.ORPHANED:
        return NotNow(_GIVEN_UP)
    if code != Ending.FITTED:
        return NotNow("there is no room in the spool") if code == Ending.NOT_WRITTEN else _unfit(order, code, bounds)
    made = inspect(target, limits)
    return made if isinstance(made, Inspected) else _unfit(order, -signal.SIGABRT, bounds)


def _ended(child: "subprocess.Popen[bytes]", give_up: Callable[[], bool], wall: float) -> int | None:
    """Its exit code, that of SIGXCPU if it took too long; None if it was given up. It has ended in any case."""
    until = time.monotonic() + wall
    try:
        while not give_up():
            try:
                return child.wait(_GLANCE)
            except subprocess.TimeoutExpired:
                if time.monotonic() > until:
                    return -signal.SIGXCPU
        return None
    finally:
        child.kill()
        child.wait()


def _unfit(order: Order, code: int, bounds: Bounds) -> Unfit:
    name, size = shown(order.source.name), f"{order.width} x {order.height} pixels"
    word = ErrorCode.RESOLUTION_TOO_HIGH if order.too_wide else ErrorCode.FILE_TOO_LARGE
    match code:
        case Ending.TRUNCATED | Ending.CORRUPT:
            word = ErrorCode.TRUNCATED if code == Ending.TRUNCATED else ErrorCode.CORRUPT
            return Unfit(Problem(word, f"{name} is {word.value}: it cannot be decoded; copy or export it again"))
        case Ending.NO_MEMORY:
            why = f"that takes more than {bounds.memory / 2**30:g} GiB of memory"
        case _ if code in _OVERSPENT:
            why = f"the process that tried was stopped, after {bounds.cpu} s of computing or for want of memory"
        case Ending.UNKNOWN_COLOURS:
            why = "its pixels are neither 8 nor 16 bits of grey, RGB or CMYK"
        case Ending.NOTHING_FITS:
            why = f"nothing that looks like it fits into {order.limits.max_bytes} bytes"
        case Ending.TOO_MANY_PIXELS:
            why = f"it holds more than {FIT_PIXELS // 10**6} million pixels"
        case _:
            why = "the process that tried broke down over it"
    return Unfit(Problem(word, f"{name} has {size} and could not be made smaller: {why}; make it smaller first"))
