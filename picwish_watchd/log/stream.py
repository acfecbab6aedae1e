"""Where log lines go: nobody waits for a terminal that is stopped, a pipe that is not read, or a journal that hangs."""

import atexit
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

# that wait; some 2 MB
_MAX_QUEUED_LINES = 10_000
# seconds that the end of the process waits for lines to leave
_DRAIN_TIMEOUT = 2.0
_BATCH_DELAY = (
    # seconds in which more lines may come: in a flood, waking the thread for each costs as much as the line
    0.005
)


class LogStream:
    """Lines to a stream, in order and whole, from any thread; never an error, and never a wait.

    What the system writes to (a file's disk may hang as well as a pipe, a socket or a terminal) is written to by a
    thread. While that waits, `_LINES_MAX` lines are kept, and what comes beyond that is counted.
    """

    def __init__(self, beneath: TextIO, lost: Callable[[int], None]) -> None:
        """``lost`` is told how many lines were lost, once there is room again."""
        self.target = beneath
        self._on_lost = lost
        self._lines: deque[str] = deque()
        self._lost_count = 0
        self._changed = threading.Condition()
        # the thread holds lines that it has not got rid of yet
        self._writing = False
        # the thread waits to be woken
        self._asleep = False
        self._thread: threading.Thread | None = None
        if _has_file_descriptor(beneath):
            thread = threading.Thread(target=self._run, name="log", daemon=True)
            # the system grants no more threads: then lines are waited for
            with suppress(RuntimeError):
                thread.start()
                self._thread = thread
                atexit.register(self.drain)

    def write(self, line: str) -> None:
        """One line, with its end."""
        if self._thread is None:
            self._write_directly(line)
            return
        with self._changed:
            if len(self._lines) >= _MAX_QUEUED_LINES:
                self._lost_count += 1
                return
            self._lines.append(line)
            # else it is on its way already
            if self._asleep:
                self._changed.notify_all()

    def flush(self) -> None:
        """Nothing: lines leave as soon as they can."""

    def drain(self, patience: float = _DRAIN_TIMEOUT) -> None:
        """Waits until all lines have left, at most ``patience`` seconds."""
        until = time.monotonic() + patience
        with self._changed:
            while (self._lines or self._writing) and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                while not self._lines:
                    self._asleep = True
                    self._changed.wait()
                    self._asleep = False
                text, self._writing = "".join(self._lines), True
                self._lines.clear()
                missing, self._lost_count = self._lost_count, 0
            self._write_blocking(text)
            if missing:
                self._on_lost(missing)
            time.sleep(_BATCH_DELAY)

    def _write_directly(self, text: str) -> None:
        # closed or broken: nobody to tell
        with suppress(OSError, ValueError):
            self.target.write(text)
            self.target.flush()

    def _write_blocking(self, text: str) -> None:
        # Not through the stream: a thread that waits in there keeps its lock, and the interpreter could not end.
        encoding = getattr(self.target, "encoding", None) or "utf-8"
        left = memoryview(text.encode(encoding, "backslashreplace"))
        with suppress(OSError, ValueError):
            fd = self.target.fileno()
            while left:
                try:
                    left = left[os.write(fd, left) :]
                except BlockingIOError:
                    # somebody else made it non-blocking
                    select.select([], [fd], [])


def _has_file_descriptor(stream: TextIO) -> bool:
    try:
        stream.fileno()
    except (OSError, ValueError, AttributeError):
        return False
    return True
