"""What the daemon holds: serves metrics and health where the configuration asks for it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from picwish_watchd.config.schema import Http
from picwish_watchd.errors import ConfigError
from picwish_watchd.metrics.health import STEPS_LATE
from picwish_watchd.metrics.loop_state import look
from picwish_watchd.metrics.probes import Survey
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pipeline.gate import Gate
from picwish_watchd.pipeline.inboxes import Inboxes

if TYPE_CHECKING:
    from picwish_watchd.metrics.http_server import Server

_log = structlog.get_logger()


# seconds until an address or a token that could not be had is tried again
_AGAIN = 30.0


class Exporter:
    """Lives as long as the daemon. Its methods belong to the event loop; whoever asks is answered by other threads."""

    def __init__(self, context: StepContext, gate: Gate, desks: Inboxes, *, late: Callable[[float], list[str]]) -> None:
        """``late``: which of the daemon's loops should have turned more than so many seconds ago and have not."""
        self._context, self._gate, self._desks, self._late = context, gate, desks, late
        self._survey = Survey(context.clock, context.counters)
        self._server: Server | None = None
        self._wanted: Http | None = None
        # when what could not be had is tried again (monotonic)
        self._again = 0.0

    def tell(self) -> None:
        """Shows how things stand now; to be called at least once a second, and whenever something changes."""
        if self._server is None and self._wanted is not None and self._context.clock.monotonic() >= self._again:
            with suppress(ConfigError):
                self._serve(self._wanted, told=True)
        if self._server is not None:
            self._survey.live = look(self._context, self._gate, self._desks, self._late(STEPS_LATE))

    def open(self, http: Http | None) -> None:
        """Serves as configured; nothing without ``http``.

        Raises `ConfigError` for a token that cannot be used; what was served before is served on. Images do not wait
        for an address that cannot be had: that is told in the log, and tried again until it can.
        """
        self._wanted = http
        if http is None:
            self._close()
        else:
            self._serve(http)

    def reopen(self, http: Http | None) -> None:
        """The same for a configuration that was read again: what cannot be is told in the log."""
        try:
            self.open(http)
        except ConfigError as error:
            self._refused(error)
        self.tell()

    async def aclose(self) -> None:
        """Ends it."""
        await asyncio.to_thread(self._close)

    def _serve(self, http: Http, *, told: bool = False) -> None:
        from picwish_watchd.metrics.http_server import Server

        self._again = self._context.clock.monotonic() + _AGAIN
        address, token = http.listen, None if http.token_secret is None else http.token_secret.read_secret()
        old = self._server
        if old is not None and old.address == address:
            old.admit(token)
            return
        # 127.0.0.1 and 0.0.0.0 cannot both have it
        moves = old is not None and old.address.port == address.port
        if moves:
            self._close()
        try:
            fresh = Server(address, self._survey, token)
        except ConfigError as error:
            if old is not None and moves:
                # somebody else was quick
                with suppress(ConfigError):
                    self._server = Server(old.address, self._survey, old.token)
            if not told:
                self._refused(error)
        else:
            self._close()
            self._server = fresh

    def _refused(self, error: ConfigError) -> None:
        if self._server is not None:
            meanwhile = f"{self._server.address} is served on, as before"
        else:
            meanwhile = "neither metrics nor health are served meanwhile; images go on, and it is tried again by itself"
        _log.error("http.refused", reason=f"{error.message}; {meanwhile}", advice=error.hint)

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            _log.info("http.closed")
