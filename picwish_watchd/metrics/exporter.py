"""What the daemon holds: serves metrics and health where the configuration asks for it."""

import asyncio
from typing import TYPE_CHECKING

import structlog

from picwish_watchd.config import Http
from picwish_watchd.errors import ConfigError
from picwish_watchd.metrics.live import look
from picwish_watchd.metrics.survey import Survey
from picwish_watchd.pipeline.context import Context
from picwish_watchd.pipeline.desks import Desks
from picwish_watchd.pipeline.gate import Gate

if TYPE_CHECKING:
    from picwish_watchd.metrics.web import Server

_log = structlog.get_logger()


class Exporter:
    """Lives as long as the daemon. Its methods belong to the event loop; whoever asks is answered by other threads."""

    def __init__(self, context: Context, gate: Gate, desks: Desks) -> None:
        self._context, self._gate, self._desks = context, gate, desks
        self._survey = Survey(context.clock, context.tally)
        self._server: Server | None = None
        self._token: str | None = None

    def tell(self) -> None:
        """Shows how things stand now; to be called at least once a second, and whenever something changes."""
        if self._server is not None:
            self._survey.live = look(self._context, self._gate, self._desks)

    def open(self, http: Http | None) -> None:
        """Serves as configured; nothing without ``http``.

        Raises `ConfigError` if that cannot be; what was served before is served on.
        """
        if http is None:
            self._close()
            return
        token = None if http.token is None else http.token.word()
        if self._server is None or self._server.address != http.listen:
            self._move(http, token)
        elif self._token != token:
            self._server.admit(token)
        self._token = token

    def reopen(self, http: Http | None) -> None:
        """The same for a configuration that was read again: what cannot be is told in the log."""
        try:
            self.open(http)
        except ConfigError as error:
            kept = "nothing is served" if self._server is None else f"{self._server.address} is served on, as before"
            _log.error("http.refused", reason=f"{error.message}; {kept}")
        self.tell()

    async def aclose(self) -> None:
        """Ends it."""
        await asyncio.to_thread(self._close)

    def _move(self, http: Http, token: str | None) -> None:
        from picwish_watchd.metrics.web import Server

        old = self._server
        same_port = old is not None and old.address.port == http.listen.port
        if old is not None and same_port:  # 127.0.0.1 and 0.0.0.0 cannot both have it
            self._close()
        try:
            fresh = Server(http.listen, self._survey, token)
        except ConfigError:
            if old is not None and same_port:
                self._server = Server(old.address, self._survey, self._token)
            raise
        self._close()
        self._server = fresh

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            _log.info("http.closed")
