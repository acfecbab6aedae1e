"""When requests left, beside the journal: the second that PicWish counts outlives the process that filled it."""

import os
from contextlib import suppress
from pathlib import Path

from picwish_watchd.clock import Clock

# moments: the highest `qps`
_CAPACITY = 1000
# bytes of a line
_LINE_LENGTH = 21


class RequestLog:
    """The moments at which the last requests left, kept from one run to the next.

    A ring of lines in ``JOURNAL.rate``, in seconds since the machine's start. It is not synced: after a power cut it
    tells nothing that matters. A file that cannot be used is no reason to stop: then nobody knows of other runs.
    """

    def __init__(self, journal: Path, clock: Clock) -> None:
        """Opens the file, and makes it where there is none; whoever calls holds the daemon's lock."""
        self.path = journal.with_name(journal.name + ".rate")
        self._clock = clock
        self._fd: int | None = None
        self._next_index = 0
        with suppress(OSError):
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)

    def recent_ages(self) -> list[float]:
        """How many seconds ago the last requests left, the longest ago first; those of an earlier boot left out."""
        moments: list[float] = []
        if self._fd is not None:
            with suppress(OSError, ValueError):
                moments = [float(line) for line in os.pread(self._fd, _CAPACITY * _LINE_LENGTH, 0).split()]
        if moments:
            self._next_index = moments.index(max(moments)) + 1
        now = self._clock.since_boot()
        return sorted((now - moment for moment in moments if moment <= now), reverse=True)

    def append(self) -> None:
        """A request leaves at this moment."""
        if self._fd is not None:
            line = f"{self._clock.since_boot():0{_LINE_LENGTH - 1}.6f}\n".encode()
            with suppress(OSError):
                os.pwrite(self._fd, line, self._next_index % _CAPACITY * _LINE_LENGTH)
            self._next_index += 1

    def close(self) -> None:
        """Closes the file; more than once does no harm."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
