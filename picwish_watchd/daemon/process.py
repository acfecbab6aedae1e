"""Settings of the daemon's process: its limit of open files, and its time limits for systemd."""

import os
import resource
from contextlib import suppress
from pathlib import Path

from picwish_watchd.errors import WatchdError

# Seconds from the end of the last request to the exit, at most.
EXIT_TIMEOUT = 15.0
# Bytes of a journal that even a slow disk reads and checks in a second.
_READ_BYTES_PER_SECOND = 5e6
# With `sync: 1` each task at PicWish holds a connection, and there are at most 5000.
_OPEN_FILE_LIMIT = 8192
# Seconds that READY may wait for the first scan of every inbox.
READY_TIMEOUT = 30.0


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error to report for ``group``: its first `WatchdError` if it has one, else its first exception."""
    known = group.subgroup(WatchdError)
    error: BaseException = known or group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def startup_timeout(journal: Path) -> float:
    """Return the seconds to request from systemd until READY. After a crash, the whole journal is read and checked."""
    with suppress(OSError):
        return READY_TIMEOUT + EXIT_TIMEOUT + os.path.getsize(journal) / _READ_BYTES_PER_SECOND
    return READY_TIMEOUT + EXIT_TIMEOUT


def raise_open_file_limit() -> None:
    """Raise the soft limit of open files to 8192, or to the hard limit if that is lower.

    It is usually 1024, for select(2). Without a free descriptor no paid result can be downloaded.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _OPEN_FILE_LIMIT if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILE_LIMIT)
    if soft != resource.RLIM_INFINITY and soft < limit:
        # The service's system call filter may forbid it.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
