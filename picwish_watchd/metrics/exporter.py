"""Serve metrics and health for as long as the configuration asks for it; the part that the daemon holds."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from picwish_watchd.config.schema import Http
from picwish_watchd.errors import ConfigError
from picwish_watchd.metrics.health import STEP_OVERDUE_SECONDS
from picwish_watchd.metrics.loop_state import capture_loop_state
from picwish_watchd.metrics.probes import StatusProbe
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pipeline.gate import Gate
from picwish_watchd.pipeline.inboxes import Inboxes

if TYPE_CHECKING:
    from picwish_watchd.metrics.http_server import MetricsServer

_log = structlog.get_logger()

# Seconds until an address or a token that could not be used is tried again.
_RETRY_DELAY = 30.0


class Exporter:
    """The HTTP server and the state of the daemon that it shows.

    The methods are for the event loop's thread; requests are answered by other threads.
    """

    def __init__(
        self, context: StepContext, gate: Gate, inboxes: Inboxes, *, overdue_loops: Callable[[float], list[str]]
    ) -> None:
        """``overdue_loops`` returns the daemon's loops that missed their heartbeat by more than a number of seconds."""
        self._context = context
        self._gate = gate
        self._inboxes = inboxes
        self._overdue_loops = overdue_loops
        self._status_probe = StatusProbe(context.clock, context.counters)
        self._server: MetricsServer | None = None
        self._http_config: Http | None = None
        # Monotonic time of the next try after an address or a token could not be used.
        self._retry_at = 0.0

    def update_loop_state(self) -> None:
        """Publish the present state; to be called at least once a second, and whenever something changes."""
        if self._server is None and self._http_config is not None and self._context.clock.monotonic() >= self._retry_at:
            with suppress(ConfigError):
                self._start_server(self._http_config, is_retry=True)
        if self._server is not None:
            self._status_probe.loop_state = capture_loop_state(
                self._context, self._gate, self._inboxes, self._overdue_loops(STEP_OVERDUE_SECONDS)
            )

    def open(self, http: Http | None) -> None:
        """Start, replace or stop the server as ``http`` says; None stops it.

        Raises `ConfigError` for a token that cannot be used; the old server goes on then. An address that cannot be
        used is logged and tried again, because images must not wait for it.
        """
        self._http_config = http
        if http is None:
            self._stop_server()
        else:
            self._start_server(http)

    def reopen(self, http: Http | None) -> None:
        """Apply ``http`` of a configuration that was read again; log errors instead of raising them."""
        try:
            self.open(http)
        except ConfigError as error:
            self._log_refusal(error)
        self.update_loop_state()

    async def aclose(self) -> None:
        """Stop the server without blocking the event loop."""
        await asyncio.to_thread(self._stop_server)

    def _start_server(self, http: Http, *, is_retry: bool = False) -> None:
        from picwish_watchd.metrics.http_server import MetricsServer

        self._retry_at = self._context.clock.monotonic() + _RETRY_DELAY
        address, token = http.listen, None if http.token_secret is None else http.token_secret.read_secret()
        old = self._server
        if old is not None and old.address == address:
            old.replace_token(token)
            return
        # 127.0.0.1 and 0.0.0.0 cannot both listen on one port: the old server has to stop first.
        is_same_port = old is not None and old.address.port == address.port
        if is_same_port:
            self._stop_server()
        try:
            fresh = MetricsServer(address, self._status_probe, token)
        except ConfigError as error:
            if old is not None and is_same_port:
                # Another program may have taken the port meanwhile.
                with suppress(ConfigError):
                    self._server = MetricsServer(old.address, self._status_probe, old.token)
            if not is_retry:
                self._log_refusal(error)
        else:
            self._stop_server()
            self._server = fresh

    def _log_refusal(self, error: ConfigError) -> None:
        if self._server is not None:
            effect = f"{self._server.address} is still served, as before"
        else:
            effect = "neither metrics nor health are served; images go on, and it is tried again automatically"
        _log.error("http.refused", reason=f"{error.message}; {effect}", advice=error.hint)

    def _stop_server(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            _log.info("http.closed")
