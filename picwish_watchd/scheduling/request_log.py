"""Keep the times of the last requests beside the journal, because PicWish's second may span two runs of the daemon."""

import os
from contextlib import suppress
from pathlib import Path

from picwish_watchd.clock import Clock

# Times that are kept: as many as the highest `qps`.
_CAPACITY = 1000
# Bytes of a line.
_LINE_LENGTH = 21


class RequestLog:
    """The times at which the last requests left, kept from one run to the next.

    ``JOURNAL.rate`` holds them as a ring of lines, in seconds since the machine's start. It is not synced, because
    after a power cut these times no longer matter. A file that cannot be used is ignored; then earlier runs are
    unknown.
    """

    def __init__(self, journal: Path, clock: Clock) -> None:
        """Open the file, and create it if it is missing. The caller must hold the daemon's lock."""
        self.path = journal.with_name(journal.name + ".rate")
        self._clock = clock
        self._fd: int | None = None
        self._next_index = 0
        with suppress(OSError):
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)

    def recent_ages(self) -> list[float]:
        """Return how many seconds ago the last requests left, the earliest first, without those before this boot."""
        times: list[float] = []
        if self._fd is not None:
            with suppress(OSError, ValueError):
                times = [float(line) for line in os.pread(self._fd, _CAPACITY * _LINE_LENGTH, 0).split()]
        if times:
            self._next_index = times.index(max(times)) + 1
        now = self._clock.since_boot()
        return sorted((now - time for time in times if time <= now), reverse=True)

    def append(self) -> None:
        """Record that a request leaves now."""
        if self._fd is not None:
            line = f"{self._clock.since_boot():0{_LINE_LENGTH - 1}.6f}\n".encode()
            with suppress(OSError):
                os.pwrite(self._fd, line, self._next_index % _CAPACITY * _LINE_LENGTH)
            self._next_index += 1

    def close(self) -> None:
        """Close the file. Further calls have no effect."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
