"""Act between the open connection and the first byte of a paid POST."""

import asyncio
import select
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from picwish_watchd.picwish.multipart import MultipartBody

#: httpcore's event before the first byte of a request leaves.
SEND_STARTED_EVENT = "http11.send_request_headers.started"

_CONNECTED_EVENT = "connection.connect_tcp.complete"


class StaleConnectionError(httpx.ConnectError):
    """The server has closed a connection before anything was sent."""


class SendHook:
    """The callbacks of one POST, called by httpcore's trace extension.

    ``before_send`` and ``on_send_start`` are those of `PicwishClient.create`. From the first byte on,
    ``send_seconds`` remain until `deadline`.
    """

    def __init__(
        self,
        before_send: Callable[[], Awaitable[None]] | None,
        on_send_start: Callable[[], Awaitable[None]],
        body: MultipartBody,
        send_seconds: float,
    ) -> None:
        #: What a callback raised.
        self.error: BaseException | None = None
        #: The deadline of the whole POST; it must be set before the request begins.
        self.deadline: asyncio.Timeout | None = None
        self._before_send = before_send
        self._on_send_start = on_send_start
        self._connection: socket.socket | None = None
        self._body = body
        self._send_seconds = send_seconds

    async def trace(self, name: str, info: dict[str, Any]) -> None:
        """Handle an event of httpcore. Raise `StaleConnectionError` if the connection must be replaced."""
        if name == _CONNECTED_EVENT:
            self._connection = info["return_value"].get_extra_info("socket")
        if name != SEND_STARTED_EVENT:
            return
        if self._before_send is not None:
            await self._call(self._before_send)
            if self._connection is not None and _is_closed(self._connection):
                raise StaleConnectionError("the server closed the connection before anything was sent")
        await self._call(self._on_send_start)
        self._body.allow_sending()
        assert self.deadline is not None
        set_deadline(self.deadline, self._send_seconds)

    async def _call(self, callback: Callable[[], Awaitable[None]]) -> None:
        try:
            await callback()
        except BaseException as error:
            self.error = error
            raise


def set_deadline(deadline: asyncio.Timeout, seconds: float) -> None:
    """Let ``deadline`` pass ``seconds`` from now; one that has passed already stays passed."""
    if not deadline.expired():
        deadline.reschedule(asyncio.get_running_loop().time() + seconds)


def _is_closed(connection: socket.socket) -> bool:
    """Return whether the other side will send nothing more.

    Data that has arrived is no sign of a closed connection: TLS 1.3 sends tickets right after the handshake.
    """
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(0))
