"""A fresh file for a picture that arrives in pieces."""

import asyncio
import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path

#: bytes that are gathered before they are written
BUFFER_SIZE = 256 * 1024


class SinkError(Exception):
    """The file cannot be written; the message says why."""


class TooLargeError(Exception):
    """More came than is taken."""


class Sink:
    """Writes in threads, so that a slow disk stops nobody else; what was not finished is removed by `close`.

    The file is made new with mode 0600 when the first bytes are written (an older one of that name is removed), and is
    not synced.
    """

    def __init__(self, path: Path, limit: int) -> None:
        """``limit`` is the most that is taken, in bytes."""
        #: bytes taken so far
        self.size = 0
        self._path = path
        self._limit = limit
        self._buffer = bytearray()
        self._file: io.FileIO | None = None
        self._finished = False

    async def write(self, data: bytes) -> None:
        """Takes ``data``. Raises `TooLargeError` and `SinkError`."""
        if self.size + len(data) > self._limit:
            raise TooLargeError
        self.size += len(data)
        self._buffer += data
        if len(self._buffer) >= BUFFER_SIZE:
            await _run_in_thread(self._flush)

    async def finish(self) -> int:
        """The file is whole: brings the rest to it and closes it. Returns its size in bytes. Raises `SinkError`."""
        await _run_in_thread(self._flush_and_close)
        self._finished = True
        return self.size

    def close(self, *, keep: bool) -> None:
        """Removes the file unless it is finished and to be kept."""
        if self._file is None or (self._finished and keep):
            return
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    def _flush_and_close(self) -> None:
        self._flush()
        try:
            assert self._file is not None
            # some file systems tell of a full disk only now
            self._file.close()
        except OSError as error:
            raise SinkError(error.strerror or str(error)) from error

    def _flush(self) -> None:
        try:
            if self._file is None:
                self._file = _create_file(self._path)
            rest = memoryview(self._buffer)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise SinkError(error.strerror or str(error)) from error
        self._buffer = bytearray()


def _create_file(path: Path) -> io.FileIO:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    return io.FileIO(fd, "w")


async def _run_in_thread(call: Callable[[], None]) -> None:
    """Runs it in a thread; if cancelled, goes only when the thread is done: nobody may close a file under its hands."""
    work = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        if not work.cancelled():
            # looked at, so that asyncio does not report it
            work.exception()
        raise
