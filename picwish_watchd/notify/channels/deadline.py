"""The end of a conversation: who is never silent and never done would keep its thread for ever."""

import os
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

DEADLINE_GRACE = (
    #: seconds beyond a notifier's `timeout` for a message as a whole; less than `courier` waits for its thread
    10.0
)


class Deadline:
    """Cuts the connections that it watches when ``timeout`` seconds and `GRACE` are over; then `passed` is true.

    The timeout of a socket is one of silence: one byte now and then, or answers without end, never meet it.
    """

    def __init__(self, timeout: float) -> None:
        self.seconds = timeout + DEADLINE_GRACE
        self.has_passed = False
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        self._timer = threading.Timer(self.seconds, self._cut_connections)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            for each in self._connections:
                each.close()
            self._connections.clear()

    def watch_connection(self, connection: socket.socket) -> None:
        """From now on, whatever TLS is laid over it: by a descriptor of our own, which nobody takes away or closes."""
        with self._lock:
            self._connections.append(socket.socket(fileno=os.dup(connection.fileno())))
        if self.has_passed:
            self._cut_connections()

    def on_httpcore_event(self, event: str, info: Mapping[str, Any]) -> None:
        """The same for httpcore (encode.io/httpcore/extensions/#trace)."""
        if event.endswith("connect_tcp.complete"):
            self.watch_connection(info["return_value"].get_extra_info("socket"))

    @property
    def failure_reason(self) -> str:
        """What is told of who did not meet it, behind its name."""
        return f"was not done after {self.seconds:g} s, and was left"

    def _cut_connections(self) -> None:
        self.has_passed = True
        with self._lock:
            for each in self._connections:
                # the other side was quicker
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
