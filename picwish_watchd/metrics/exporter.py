"""What the daemon holds: serves metrics and health where the configuration asks for it."""

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


# seconds until an address or a token that could not be had is tried again
_RETRY_DELAY = 30.0


class Exporter:
    """Lives as long as the daemon. Its methods belong to the event loop; whoever asks is answered by other threads."""

    def __init__(self, context: StepContext, gate: Gate, desks: Inboxes, *, late: Callable[[float], list[str]]) -> None:
        """``late``: which of the daemon's loops should have turned more than so many seconds ago and have not."""
        self._context, self._gate, self._inboxes, self._overdue_loops = context, gate, desks, late
        self._status_probe = StatusProbe(context.clock, context.counters)
        self._server: MetricsServer | None = None
        self._http_config: Http | None = None
        # when what could not be had is tried again (monotonic)
        self._retry_at = 0.0

    def update_loop_state(self) -> None:
        """Shows how things stand now; to be called at least once a second, and whenever something changes."""
        if self._server is None and self._http_config is not None and self._context.clock.monotonic() >= self._retry_at:
            with suppress(ConfigError):
                self._start_server(self._http_config, told=True)
        if self._server is not None:
            self._status_probe.loop_state = capture_loop_state(
                self._context, self._gate, self._inboxes, self._overdue_loops(STEP_OVERDUE_SECONDS)
            )

    def open(self, http: Http | None) -> None:
        """Serves as configured; nothing without ``http``.

        Raises `ConfigError` for a token that cannot be used; what was served before is served on. Images do not wait
        for an address that cannot be had: that is told in the log, and tried again until it can.
        """
        self._http_config = http
        if http is None:
            self._stop_server()
        else:
            self._start_server(http)

    def reopen(self, http: Http | None) -> None:
        """The same for a configuration that was read again: what cannot be is told in the log."""
        try:
            self.open(http)
        except ConfigError as error:
            self._log_refusal(error)
        self.update_loop_state()

    async def aclose(self) -> None:
        """Ends it."""
        await asyncio.to_thread(self._stop_server)

    def _start_server(self, http: Http, *, told: bool = False) -> None:
        from picwish_watchd.metrics.http_server import MetricsServer

        self._retry_at = self._context.clock.monotonic() + _RETRY_DELAY
        address, token = http.listen, None if http.token_secret is None else http.token_secret.read_secret()
        old = self._server
        if old is not None and old.address == address:
            old.replace_token(token)
            return
        # 127.0.0.1 and 0.0.0.0 cannot both have it
        moves = old is not None and old.address.port == address.port
        if moves:
            self._stop_server()
        try:
            fresh = MetricsServer(address, self._status_probe, token)
        except ConfigError as error:
            if old is not None and moves:
                # somebody else was quick
                with suppress(ConfigError):
                    self._server = MetricsServer(old.address, self._status_probe, old.token)
            if not told:
                self._log_refusal(error)
        else:
            self._stop_server()
            self._server = fresh

    def _log_refusal(self, error: ConfigError) -> None:
        if self._server is not None:
            meanwhile = f"{self._server.address} is served on, as before"
        else:
            meanwhile = "neither metrics nor health are served meanwhile; images go on, and it is tried again by itself"
        _log.error("http.refused", reason=f"{error.message}; {meanwhile}", advice=error.hint)

    def _stop_server(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            _log.info("http.closed")
