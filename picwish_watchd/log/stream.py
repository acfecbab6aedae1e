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
_LINES_MAX = 10_000
# seconds that the end of the process waits for lines to leave
_PATIENCE = 2.0
_GATHER = (
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
        self.beneath = beneath
        self._lost = lost
        self._lines: deque[str] = deque()
        self._missing = 0
        self._changed = threading.Condition()
        # the thread holds lines that it has not got rid of yet
        self._writing = False
        # the thread waits to be woken
        self._asleep = False
        self._thread: threading.Thread | None = None
        if _is_systems(beneath):
            thread = threading.Thread(target=self._run, name="log", daemon=True)
            # the system grants no more threads: then lines are waited for
            with suppress(RuntimeError):
                thread.start()
                self._thread = thread
                atexit.register(self.drain)

    def write(self, line: str) -> None:
        """One line, with its end."""
        if self._thread is None:
            self._put(line)
            return
        with self._changed:
            if len(self._lines) >= _LINES_MAX:
                self._missing += 1
                return
            self._lines.append(line)
            # else it is on its way already
            if self._asleep:
                self._changed.notify_all()

    def flush(self) -> None:
        """Nothing: lines leave as soon as they can."""

    def drain(self, patience: float = _PATIENCE) -> None:
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
                missing, self._missing = self._missing, 0
            self._put_patiently(text)
            if missing:
                self._lost(missing)
            time.sleep(_GATHER)

    def _put(self, text: str) -> None:
        # closed or broken: nobody to tell
        with suppress(OSError, ValueError):
            self.beneath.write(text)
            self.beneath.flush()

    def _put_patiently(self, text: str) -> None:
        # Not through the stream: a thread that waits in there keeps its lock, and the interpreter could not end.
        encoding = getattr(self.beneath, "encoding", None) or "utf-8"
        left = memoryview(text.encode(encoding, "backslashreplace"))
        with suppress(OSError, ValueError):
            fd = self.beneath.fileno()
            while left:
                try:
                    left = left[os.write(fd, left) :]
                except BlockingIOError:
                    # somebody else made it non-blocking
                    select.select([], [fd], [])


def _is_systems(stream: TextIO) -> bool:
    try:
        stream.fileno()
    except (OSError, ValueError, AttributeError):
        return False
    return True
