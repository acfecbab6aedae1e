"""Write log lines without ever waiting for a stopped terminal, a pipe that is not read, or a journal that hangs."""

import atexit
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

# Lines that may wait to be written; about 2 MB.
_MAX_QUEUED_LINES = 10_000
# Seconds that the end of the process waits for lines to be written.
_DRAIN_TIMEOUT = 2.0
# Seconds in which more lines are collected. In a flood, waking the thread for each line would cost as much as the line.
_BATCH_DELAY = 0.005


class LogStream:
    """Writes whole lines to a stream in order, from any thread, without raising and without waiting.

    A stream with a file descriptor may hang (a file's disk as well as a pipe, a socket or a terminal), so a thread
    writes to it. While the thread waits, up to 10 000 lines are queued; further lines are dropped and counted.
    """

    def __init__(self, target: TextIO, on_lost: Callable[[int], None]) -> None:
        """``on_lost`` is called with the number of dropped lines once there is room again."""
        self.target = target
        self._on_lost = on_lost
        self._lines: deque[str] = deque()
        self._lost_count = 0
        self._changed = threading.Condition()
        # Whether the thread holds lines that are not written yet.
        self._writing = False
        # Whether the thread waits for new lines.
        self._asleep = False
        self._thread: threading.Thread | None = None
        if _has_file_descriptor(target):
            thread = threading.Thread(target=self._run, name="log", daemon=True)
            # Without a thread (the system grants no more), the caller writes and waits.
            with suppress(RuntimeError):
                thread.start()
                self._thread = thread
                atexit.register(self.drain)

    def write(self, line: str) -> None:
        """Queue ``line``, which includes its line end."""
        if self._thread is None:
            self._write_directly(line)
            return
        with self._changed:
            if len(self._lines) >= _MAX_QUEUED_LINES:
                self._lost_count += 1
                return
            self._lines.append(line)
            # A thread that is awake takes the line anyway.
            if self._asleep:
                self._changed.notify_all()

    def flush(self) -> None:
        """Do nothing: lines are written as soon as possible."""

    def drain(self, timeout: float = _DRAIN_TIMEOUT) -> None:
        """Wait until all lines are written, ``timeout`` seconds at most."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while (self._lines or self._writing) and (remaining := deadline - time.monotonic()) > 0:
                self._changed.wait(remaining)

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
                lost, self._lost_count = self._lost_count, 0
            self._write_blocking(text)
            if lost:
                self._on_lost(lost)
            time.sleep(_BATCH_DELAY)

    def _write_directly(self, text: str) -> None:
        # If the stream is closed or broken, there is no other place to report it.
        with suppress(OSError, ValueError):
            self.target.write(text)
            self.target.flush()

    def _write_blocking(self, text: str) -> None:
        # Bypass the stream object: a thread that waits inside it keeps its lock, and the interpreter could not end.
        encoding = getattr(self.target, "encoding", None) or "utf-8"
        unwritten = memoryview(text.encode(encoding, "backslashreplace"))
        with suppress(OSError, ValueError):
            fd = self.target.fileno()
            while unwritten:
                try:
                    unwritten = unwritten[os.write(fd, unwritten) :]
                except BlockingIOError:
                    # Another process made the descriptor non-blocking.
                    select.select([], [fd], [])


def _has_file_descriptor(stream: TextIO) -> bool:
    try:
        stream.fileno()
    except (OSError, ValueError, AttributeError):
        return False
    return True
