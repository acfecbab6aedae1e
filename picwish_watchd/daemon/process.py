"""Prepare the process for the daemon: its limit of open files, and its journal."""

import os
import resource
from contextlib import suppress
from pathlib import Path

from picwish_watchd.errors import WatchdError

# seconds from the last request's end to the exit, at most
EXIT_TIMEOUT = 15.0


# bytes of a journal that even a slow disk reads and checks in a second
_READ_BYTES_PER_SECOND = 5e6


# with `sync: 1` each task at PicWish holds a connection, and there are at most 5000
_OPEN_FILE_LIMIT = 8192


# seconds that systemd is kept waiting for the first walk of every inbox
READY_TIMEOUT = 30.0


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What ended the daemon: the journal's word where there is one, else the first bug."""
    told = group.subgroup(WatchdError)
    error: BaseException = told or group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def startup_timeout(journal: Path) -> float:
    """Seconds that systemd is asked for until READY, beyond its own limit: an unclean journal is read as a whole."""
    with suppress(OSError):
        return READY_TIMEOUT + EXIT_TIMEOUT + os.path.getsize(journal) / _READ_BYTES_PER_SECOND
    return READY_TIMEOUT + EXIT_TIMEOUT


def raise_open_file_limit() -> None:
    """A process begins with 1024, for the sake of select(2); without a free one no paid result can be fetched."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _OPEN_FILE_LIMIT if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILE_LIMIT)
    if soft != resource.RLIM_INFINITY and soft < most:
        # as a service's filter of system calls may have it
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
