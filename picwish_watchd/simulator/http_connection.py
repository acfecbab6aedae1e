"""HTTP/1.1 on a loopback port: a connection that can also misbehave, and the port that takes connections."""

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
#: How much of an unwanted body is read after an early answer, and for how long: a client that is still sending must
#: be able to read the answer before the connection breaks (nginx: lingering_close).
LINGER_BYTES = 64 * 1024 * 1024
LINGER_SECONDS = 5.0


class ConnectionClosed(Exception):  # noqa: N818 - it is an ending, not an error
    """This connection is over; nothing more is said on it."""


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The head of a request."""

    method: str
    path: str
    query: str
    #: names in lower case
    headers: Mapping[str, str]
    #: the clock's monotonic seconds at its first byte
    received_at: float


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An answer; ``body`` in pieces needs its ``length``."""

    status: int
    body: bytes | Iterable[bytes] = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return len(self.body) if isinstance(self.body, bytes) else self.length or 0

    @property
    def chunks(self) -> Iterable[bytes]:
        """The body as it is written."""
        return (self.body,) if isinstance(self.body, bytes) else self.body


class HttpConnection:
    """The server's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, clock: Clock) -> None:
        self._reader = reader
        self._writer = writer
        self._clock = clock
        self._http = h11.Connection(h11.SERVER)
        self._method = ""
        #: bytes that may still be written
        self.bytes_until_cut: int | None = None
        #: bytes a second; None: as fast as they go
        self.bytes_per_second: float | None = None

    async def read_head(self) -> RequestHead | None:
        """The next request; None when the client has closed. Raises Gone when what came is no HTTP."""
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
        """The body in pieces, as they come. Raises Gone when it ends too early."""
        if self._http.they_are_waiting_for_100_continue:
            await self._write(self._serialize_event(h11.InformationalResponse(status_code=100, headers=[])))
        while not isinstance(event := self._next(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            else:
                await self._receive()

    async def send_response(self, answer: HttpResponse) -> None:
        """Answers. Raises Gone when the connection ends with that, as it does when a body was left unread."""
        unread = self._has_unread_body()
        headers = {
            "Date": email.utils.formatdate(usegmt=True),
            "Server": "picwish-simulator",
            "Content-Length": str(answer.size),
            **answer.headers,
            **({"Connection": "close"} if unread else {}),
        }
        out = self._serialize_event(h11.Response(status_code=answer.status, headers=list(headers.items())))
        for piece in () if self._method == "HEAD" else answer.chunks:
            await self._write(out + self._serialize_event(h11.Data(data=piece)))
            out = b""
        await self._write(out + self._serialize_event(h11.EndOfMessage()))
        if unread:
            await self._linger()
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            raise ConnectionClosed
        self._http.start_next_cycle()

    async def send_raw(self, data: bytes) -> NoReturn:
        """Writes bytes as they are, then ends the connection."""
        await self._write(data)
        raise ConnectionClosed

    def reset(self) -> NoReturn:
        """Ends the connection with RST (socket(7): SO_LINGER of zero seconds)."""
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
        """Whether the client is still sending; what came already is thrown away."""
        while self._http.their_state is h11.SEND_BODY:
            if self._next() is h11.NEED_DATA:
                return True
        return False

    async def _write(self, data: bytes) -> None:
        if self.bytes_until_cut is not None:
            data, self.bytes_until_cut = data[: self.bytes_until_cut], self.bytes_until_cut - len(data)
        step = len(data) if self.bytes_per_second is None else max(1, int(self.bytes_per_second / 10))
        for start in range(0, len(data), step or 1):
            piece = data[start : start + step]
            self._writer.write(piece)
            await self._writer.drain()
            if self.bytes_per_second is not None:
                await self._clock.sleep(len(piece) / self.bytes_per_second)
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
    """Holds a port while nobody listens on it: connections are refused, and the kernel gives it to nobody else.

    Two sockets with SO_REUSEADDR may have one port unless both listen (socket(7)); a port for which the kernel
    is asked, by bind(2) with 0 or by connect(2), is never one that is bound.
    """
    keeper = socket.socket()
    try:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind((LOOPBACK, port))
    except OSError:
        keeper.close()
        raise
    return keeper


class Listener:
    """A port of 127.0.0.1 and the connections on it; never any other address."""

    def __init__(self, serve: Callable[[HttpConnection], Awaitable[None]], clock: Callable[[], Clock]) -> None:
        self._serve = serve
        self._clock = clock
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._reserved_socket: socket.socket | None = None
        #: tried again after ``close``
        self.port = 0

    async def open(self, port: int = 0) -> None:
        """Takes connections; port 0 is the last port, or at first any free one. OSError: the port is taken."""
        if self._reserved_socket is None:
            self._reserved_socket = _reserve_port(port or self.port)
            self.port = self._reserved_socket.getsockname()[1]
        if self._server is None:
            self._server = await asyncio.start_server(self._on_connection, LOOPBACK, self.port, backlog=1024)

    def refuse_connections(self) -> None:
        """From now on connections are refused; those that stand are broken."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._connections.values():
            writer.transport.abort()

    async def close(self) -> None:
        """``shut``, gives the port away, and waits until every connection's task has ended."""
        self.refuse_connections()
        if self._reserved_socket is not None:
            self._reserved_socket.close()
            self._reserved_socket = None
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Not a coroutine function: asyncio 3.11 logs a traceback for its own tasks when they are cancelled."""
        # it was being accepted while the port was shut
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
            # the client left, or a fault ended it: nobody is there to be told
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
