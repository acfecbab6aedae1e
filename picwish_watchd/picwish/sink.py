"""Write an image that arrives in chunks into a new file."""

import asyncio
import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path

#: Bytes gathered before they are written.
BUFFER_SIZE = 256 * 1024


class SinkError(Exception):
    """The file cannot be written; the message says why."""


class TooLargeError(Exception):
    """More bytes came than the limit allows."""


class Sink:
    """A new file that is written in threads, so that a slow disk does not stop the event loop.

    It is created with mode 0600 when the first bytes are written; an older file of that name is removed. It is not
    synced. `close` removes it if it was not finished.
    """

    def __init__(self, path: Path, limit: int) -> None:
        """Accept at most ``limit`` bytes."""
        #: Bytes accepted so far.
        self.size = 0
        self._path = path
        self._limit = limit
        self._buffer = bytearray()
        self._file: io.FileIO | None = None
        self._finished = False

    async def write(self, data: bytes) -> None:
        """Append ``data``. Raise `TooLargeError` above the limit and `SinkError` if the file cannot be written."""
        if self.size + len(data) > self._limit:
            raise TooLargeError
        self.size += len(data)
        self._buffer += data
        if len(self._buffer) >= BUFFER_SIZE:
            await _run_in_thread(self._flush)

    async def finish(self) -> int:
        """Write the rest, close the file and return its size in bytes. Raise `SinkError` if it cannot be written."""
        await _run_in_thread(self._flush_and_close)
        self._finished = True
        return self.size

    def close(self, *, keep: bool) -> None:
        """Remove the file unless it is finished and ``keep`` is set."""
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
            # Some file systems report a full disk only here.
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
    """Run ``call`` in a thread; if cancelled, wait for the thread first, because it still uses the file."""
    work = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        if not work.cancelled():
            # Retrieve the error, so that asyncio does not report it as lost.
            work.exception()
        raise
