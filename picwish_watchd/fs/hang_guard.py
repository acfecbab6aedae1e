"""Ask paths that may hang, such as dead network mounts, within a time limit."""

import os
import threading
import time
import unicodedata
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from picwish_watchd.fs.mounts import mount_of

T = TypeVar("T")


#: seconds that a mount may take to answer where nobody can wait for it
HANG_TIMEOUT = 3.0


def call_with_timeout(ask: Callable[[], T]) -> T | None:
    """What ``ask`` answers; None if it does not within `PATIENCE`, and then its thread is left behind."""
    told: list[T] = []
    thread = threading.Thread(target=lambda: told.append(ask()), daemon=True)
    try:
        thread.start()
    except RuntimeError:
        # the system grants no more threads
        return ask()
    thread.join(HANG_TIMEOUT)
    return told[0] if told else None


def resolve_paths(paths: Iterable[Path]) -> dict[Path, str]:
    """Where ``paths`` lead, their links followed as far as they exist.

    By its letters alone where that is not told within `PATIENCE`, for all paths together: a mount that hangs keeps
    whoever asks it waiting (here: a thread that is left behind).
    """
    wanted = set(paths)
    told = _call_for_each(wanted, os.path.realpath)
    return {path: told.get(path) or os.path.normpath(path) for path in wanted}


def resolve_with_identity(paths: Iterable[Path]) -> dict[Path, tuple[str, str | None]]:
    """Where ``paths`` lead, as `real_paths` tells, and what folders they are, in a word: one for all names of a folder,
    as "A" and "a" are on many shares; None where there is none, or it does not answer.

    All are asked at once, so that a mount that hangs costs `PATIENCE` and not twice that. A share of several disks may
    number the folders of each alike: there two names are one only if they differ in nothing but their spelling.
    """
    wanted = set(paths)
    told = _call_for_each(wanted, lambda path: (os.path.realpath(path), _folder_identity(path)))
    return {path: told.get(path) or (os.path.normpath(path), None) for path in wanted}


def _folder_identity(path: Path) -> str | None:
    with suppress(OSError):
        found = os.stat(path)
        mount = mount_of(path)
        spelled = mount is not None and mount.is_network
        name = unicodedata.normalize("NFC", os.path.realpath(path)).casefold() if spelled else ""
        return f"inode {found.st_dev}:{found.st_ino}:{name}"
    return None


def find_unresponsive_paths(paths: Iterable[Path]) -> frozenset[Path]:
    """Those of ``paths`` that nobody should ask, for they do not answer within `PATIENCE`, all asked at once."""
    wanted = frozenset(paths)
    return wanted - _call_for_each(wanted, os.path.exists).keys()


def _call_for_each(paths: Collection[Path], ask: Callable[[Path], T]) -> dict[Path, T]:
    told: dict[Path, T] = {}

    def note(path: Path) -> None:
        told[path] = ask(path)

    threads: list[threading.Thread] = []
    for path in paths:
        thread = threading.Thread(target=note, args=(path,), daemon=True)
        try:
            thread.start()
            threads.append(thread)
        except RuntimeError:
            # the system grants no more threads
            note(path)
    until = time.monotonic() + HANG_TIMEOUT
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return dict(told)
