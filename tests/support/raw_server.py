"""A small loopback server for tests that control every byte and the end of the connection."""

import asyncio
import contextlib
import json
import os
import re
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

Handler = Callable[["RawConnection"], Awaitable[None]]


class RawConnection:
    """One connection of a client; ``received`` has every byte read from it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.received = bytearray()
        self._reader = reader
        self._writer = writer

    async def read_head(self) -> bytes:
        """Return the next request's head, up to and with the empty line."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        self.received += head
        return head

    async def read_request(self) -> tuple[bytes, bytes]:
        """Return head and body of the next request."""
        head = await self.read_head()
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        body = await self._reader.readexactly(int(length[1])) if length else b""
        self.received += body
        return head, body

    async def read(self, size: int) -> None:
        self.received += await self._reader.readexactly(size)

    async def drain_input(self) -> None:
        """Read until the client closes."""
        with contextlib.suppress(ConnectionError):
            while piece := await self._reader.read(65536):
                self.received += piece

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def send_below_tls(self, data: bytes) -> None:
        """Send bytes below the TLS layer, as a broken middlebox does."""
        with socket.socket(fileno=os.dup(self._writer.get_extra_info("socket").fileno())) as raw:
            raw.sendall(data)

    def end_output(self) -> None:
        """Close the sending direction only."""
        self._writer.write_eof()

    def reset(self) -> None:
        """End the connection with a RST."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await self._writer.wait_closed()


class RawServer:
    """Serve the n-th connection with the n-th handler, later ones with the last.

    Close each when its handler returns.
    """

    def __init__(self, *handlers: Handler, tls: ssl.SSLContext | None = None) -> None:
        self.connections: list[RawConnection] = []
        self.failures: list[BaseException] = []
        self._handlers = handlers
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The URL of the server, also after it has stopped listening."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    @property
    def received(self) -> bytes:
        """All bytes received on all connections, in their order."""
        return b"".join(bytes(c.received) for c in self.connections)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if error is None and self.failures:
            raise self.failures[0]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = RawConnection(reader, writer)
        handler = self._handlers[min(len(self.connections), len(self._handlers) - 1)]
        self.connections.append(connection)
        task = asyncio.get_running_loop().create_task(self._serve(handler, connection))
        self._tasks.add(task)

    async def _serve(self, handler: Handler, connection: RawConnection) -> None:
        try:
            await handler(connection)
        except (ConnectionError, asyncio.IncompleteReadError):
            # The client closed the connection.
            pass
        except AssertionError as error:
            self.failures.append(error)
        finally:
            await connection.close()


def http_response(
    body: bytes | str | dict[str, object] = b"", *, code: int = 200, headers: dict[str, str] | None = None
) -> bytes:
    """Return a complete HTTP/1.1 response; a dict is sent as JSON."""
    if isinstance(body, dict):
        body = json.dumps(body)
    if isinstance(body, str):
        body = body.encode()
    head = {"Content-Length": str(len(body))} | (headers or {})
    lines = "".join(f"{k}: {v}\r\n" for k, v in head.items())
    return f"HTTP/1.1 {code} Whatever\r\n{lines}\r\n".encode() + body


def reply_with(*responses: bytes) -> Handler:
    """Return a handler that reads one request for each response."""

    async def handle(connection: RawConnection) -> None:
        for each in responses:
            await connection.read_request()
            await connection.send(each)

    return handle


async def read_without_reply(connection: RawConnection) -> None:
    """Handle a connection by reading everything and sending nothing."""
    await connection.drain_input()


async def ignore_client(connection: RawConnection) -> None:
    """Handle a connection without even reading from it."""
    await asyncio.Event().wait()
