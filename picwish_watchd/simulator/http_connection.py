"""HTTP/1.1 on a loopback port: a connection that can also misbehave, and the port that accepts connections."""

import asyncio
import contextlib
import email.utils
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

import h11

from picwish_watchd.clock import Clock

LOOPBACK = "127.0.0.1"
READ_SIZE = 256 * 1024
#: Bytes of an unwanted body that are read after an early response, and seconds: a client that is still sending must
#: be able to read the response before the connection breaks (nginx: lingering_close).
LINGER_BYTES = 64 * 1024 * 1024
LINGER_SECONDS = 5.0


class ConnectionClosed(Exception):  # noqa: N818 - it is an end, not an error
    """The connection is over; nothing more is sent or received."""


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The head of a request."""

    method: str
    path: str
    query: str
    #: Names are in lower case.
    headers: Mapping[str, str]
    #: Monotonic seconds of the clock at its first byte.
    received_at: float


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response. A ``body`` in chunks needs its ``length`` in bytes."""

    status: int
    body: bytes | Iterable[bytes] = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None

    @property
    def size(self) -> int:
        """Length of the body in bytes."""
        return len(self.body) if isinstance(self.body, bytes) else self.length or 0

    @property
    def chunks(self) -> Iterable[bytes]:
        """The body in the chunks in which it is sent."""
        return (self.body,) if isinstance(self.body, bytes) else self.body


class HttpConnection:
    """The server side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, clock: Clock) -> None:
        self._reader = reader
        self._writer = writer
        self._clock = clock
        self._http = h11.Connection(h11.SERVER)
        self._method = ""
        #: Bytes that are still sent before the connection is cut; None for no limit.
        self.bytes_until_cut: int | None = None
        #: Bytes a second; None for full speed.
        self.bytes_per_second: float | None = None

    async def read_head(self) -> RequestHead | None:
        """Read the head of the next request; None if the client closed.

        Raises `ConnectionClosed` if the bytes are not HTTP.
        """
        at: float | None = None
        while (event := self._next()) is h11.NEED_DATA:
            await self._receive()
            at = at or self._clock.monotonic()
        if not isinstance(event, h11.Request):
            return None
        path, _, query = event.target.decode("ascii").partition("?")
        headers = {name.decode("ascii"): value.decode("latin-1") for name, value in event.headers}
        at = at or self._clock.monotonic()
        self._method = event.method.decode("ascii")
        return RequestHead(self._method, path, query, headers, at)

    async def iter_body(self) -> AsyncIterator[bytes]:
        """Yield the body in chunks as they arrive. Raises `ConnectionClosed` if it ends too early."""
        if self._http.they_are_waiting_for_100_continue:
            await self._write(self._serialize_event(h11.InformationalResponse(status_code=100, headers=[])))
        while not isinstance(event := self._next(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            else:
                await self._receive()

    async def send_response(self, response: HttpResponse) -> None:
        """Send a response. Raises `ConnectionClosed` if the connection ends with it, as after an unread body."""
        unread = self._has_unread_body()
        headers = {
            "Date": email.utils.formatdate(usegmt=True),
            "Server": "picwish-simulator",
            "Content-Length": str(response.size),
            **response.headers,
            **({"Connection": "close"} if unread else {}),
        }
        out = self._serialize_event(h11.Response(status_code=response.status, headers=list(headers.items())))
        for chunk in () if self._method == "HEAD" else response.chunks:
            await self._write(out + self._serialize_event(h11.Data(data=chunk)))
            out = b""
        await self._write(out + self._serialize_event(h11.EndOfMessage()))
        if unread:
            await self._linger()
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            raise ConnectionClosed
        self._http.start_next_cycle()

    async def send_raw(self, data: bytes) -> NoReturn:
        """Send bytes unchanged, then end the connection."""
        await self._write(data)
        raise ConnectionClosed

    def reset(self) -> NoReturn:
        """End the connection with RST (socket(7): SO_LINGER of zero seconds)."""
        sock: socket.socket = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
        raise ConnectionClosed

    def _next(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as error:
            raise ConnectionClosed(str(error)) from error

    def _serialize_event(self, event: h11.Event) -> bytes:
        return self._http.send(event) or b""

    async def _receive(self) -> None:
        self._http.receive_data(await self._reader.read(READ_SIZE))

    def _has_unread_body(self) -> bool:
        """Return whether the client is still sending; what has arrived is discarded."""
        while self._http.their_state is h11.SEND_BODY:
            if self._next() is h11.NEED_DATA:
                return True
        return False

    async def _write(self, data: bytes) -> None:
        if self.bytes_until_cut is not None:
            data, self.bytes_until_cut = data[: self.bytes_until_cut], self.bytes_until_cut - len(data)
        step = len(data) if self.bytes_per_second is None else max(1, int(self.bytes_per_second / 10))
        for start in range(0, len(data), step or 1):
            chunk = data[start : start + step]
            self._writer.write(chunk)
            await self._writer.drain()
            if self.bytes_per_second is not None:
                await self._clock.sleep(len(chunk) / self.bytes_per_second)
        if self.bytes_until_cut is not None and self.bytes_until_cut < 0:
            raise ConnectionClosed

    async def _linger(self) -> None:
        self._writer.write_eof()
        left = LINGER_BYTES
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while left > 0 and (data := await self._reader.read(READ_SIZE)):
                    left -= len(data)


def _reserve_port(port: int) -> socket.socket:
    """Bind a socket to a port without listening: connections are refused, and no other process gets the port.

    Two sockets with SO_REUSEADDR may share a port unless both listen (socket(7)). The kernel never chooses a bound
    port for bind(2) with port 0 or for connect(2).
    """
    reserved = socket.socket()
    try:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind((LOOPBACK, port))
    except OSError:
        reserved.close()
        raise
    return reserved


class Listener:
    """A port of 127.0.0.1, and of no other address, with its connections."""

    def __init__(self, serve: Callable[[HttpConnection], Awaitable[None]], clock: Callable[[], Clock]) -> None:
        self._serve = serve
        self._clock = clock
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._reserved_socket: socket.socket | None = None
        #: Kept after `close` for the next `open`; 0 before the first.
        self.port = 0

    async def open(self, port: int = 0) -> None:
        """Accept connections. Port 0 means the last port, or at first any free one. Raises OSError if it is taken."""
        if self._reserved_socket is None:
            self._reserved_socket = _reserve_port(port or self.port)
            self.port = self._reserved_socket.getsockname()[1]
        if self._server is None:
            self._server = await asyncio.start_server(self._on_connection, LOOPBACK, self.port, backlog=1024)

    def refuse_connections(self) -> None:
        """Refuse connections from now on, and break the open ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._connections.values():
            writer.transport.abort()

    async def close(self) -> None:
        """Break all connections, release the port, and wait until the tasks of all connections have ended."""
        self.refuse_connections()
        if self._reserved_socket is not None:
            self._reserved_socket.close()
            self._reserved_socket = None
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Start a task for a new connection.

        Not a coroutine function: asyncio 3.11 logs a traceback for its own tasks when they are cancelled.
        """
        # The connection was accepted while the port was being closed.
        if self._server is None:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve_connection(reader, writer))
        self._connections[task] = writer
        task.add_done_callback(self._connections.pop)

    async def _serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(HttpConnection(reader, writer, self._clock()))
        except (ConnectionClosed, ConnectionError):
            # The client disconnected, or a fault ended the connection.
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
