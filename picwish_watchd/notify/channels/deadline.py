"""Limit the time of a whole conversation with a server; a socket's timeout only limits its silence."""

import os
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

#: Seconds that a whole message may take beyond the notifier's `timeout`. Less than `send_with_timeout` adds to it, so
#: that the connection is cut before the thread is given up.
DEADLINE_GRACE = 10.0


class Deadline:
    """Cuts the connections that it watches once ``timeout`` plus `DEADLINE_GRACE` seconds are over.

    `has_passed` is true from then on. A server that sends one byte now and then, or an endless answer, would never
    reach the timeout of a socket and would occupy its thread for ever.
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
        """Watch a connection from now on, also under TLS: through a duplicate of its file descriptor.

        Nobody else can close or take over the duplicate.
        """
        with self._lock:
            self._connections.append(socket.socket(fileno=os.dup(connection.fileno())))
        if self.has_passed:
            self._cut_connections()

    def on_httpcore_event(self, event: str, info: Mapping[str, Any]) -> None:
        """Watch each connection that httpcore opens (encode.io/httpcore/extensions/#trace)."""
        if event.endswith("connect_tcp.complete"):
            self.watch_connection(info["return_value"].get_extra_info("socket"))

    @property
    def failure_reason(self) -> str:
        """Why a server failed to meet the deadline, as the end of a sentence that begins with its name."""
        return f"did not finish within {self.seconds:g} s and was disconnected"

    def _cut_connections(self) -> None:
        self.has_passed = True
        with self._lock:
            for each in self._connections:
                # The other side may have closed it already.
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
