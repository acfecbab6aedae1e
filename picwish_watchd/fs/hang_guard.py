"""Call into paths that may hang, such as those on a dead network mount, with a time limit."""

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

#: Seconds that a mount may take to answer where the caller cannot wait for it.
HANG_TIMEOUT = 3.0


def call_with_timeout(function: Callable[[], T]) -> T | None:
    """Return the result of ``function``, or None if it takes longer than `HANG_TIMEOUT`.

    It then goes on in a daemon thread that nobody waits for.
    """
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    try:
        thread.start()
    except RuntimeError:
        # The system grants no more threads.
        return function()
    thread.join(HANG_TIMEOUT)
    return results[0] if results else None


def resolve_paths(paths: Iterable[Path]) -> dict[Path, str]:
    """Return where each path leads, with symbolic links followed as far as the path exists.

    All are resolved at once, within `HANG_TIMEOUT` in all. A path that does not answer in time is normalised by its
    text alone, and its thread is left behind.
    """
    wanted = set(paths)
    resolved = _call_for_each(wanted, os.path.realpath)
    return {path: resolved.get(path) or os.path.normpath(path) for path in wanted}


def resolve_with_identity(paths: Iterable[Path]) -> dict[Path, tuple[str, str | None]]:
    """Return for each path where it leads (see `resolve_paths`) and the identity of the folder there.

    The identity is one text for all names of a folder, as "A" and "a" are on many shares; None where there is no folder
    or it does not answer. All are asked at once, so that a hung mount costs `HANG_TIMEOUT` once. A share made of
    several disks may give the same inode numbers on each of them, so on a network mount the name counts too, without
    regard to case and to Unicode normalisation.
    """
    wanted = set(paths)
    resolved = _call_for_each(wanted, lambda path: (os.path.realpath(path), _folder_identity(path)))
    return {path: resolved.get(path) or (os.path.normpath(path), None) for path in wanted}


def _folder_identity(path: Path) -> str | None:
    with suppress(OSError):
        status = os.stat(path)
        mount = mount_of(path)
        is_network = mount is not None and mount.is_network
        name = unicodedata.normalize("NFC", os.path.realpath(path)).casefold() if is_network else ""
        return f"inode {status.st_dev}:{status.st_ino}:{name}"
    return None


def find_unresponsive_paths(paths: Iterable[Path]) -> frozenset[Path]:
    """Return those of ``paths`` that do not answer within `HANG_TIMEOUT`; all are asked at once."""
    wanted = frozenset(paths)
    return wanted - _call_for_each(wanted, os.path.exists).keys()


def _call_for_each(paths: Collection[Path], function: Callable[[Path], T]) -> dict[Path, T]:
    """Call ``function`` with each path, in a thread each; return the results that came within `HANG_TIMEOUT`."""
    results: dict[Path, T] = {}

    def call(path: Path) -> None:
        results[path] = function(path)

    threads: list[threading.Thread] = []
    for path in paths:
        thread = threading.Thread(target=call, args=(path,), daemon=True)
        try:
            thread.start()
            threads.append(thread)
        except RuntimeError:
            # The system grants no more threads.
            call(path)
    deadline = time.monotonic() + HANG_TIMEOUT
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(results)
