"""The gate: what stands before paying, and whether it is open."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

import structlog

from picwish_watchd.picwish import Busy, Healthy, Unauthorized, Unavailable
from picwish_watchd.pipeline.bell import Bell
from picwish_watchd.pipeline.context import Context
from picwish_watchd.pipeline.pacer import Pacer, Urgency

_log = structlog.get_logger()

_PROBE_FIRST, _PROBE_MAX = 1.0, 30.0  # seconds between free queries while the gate is closed


class Reason(StrEnum):
    """Why nothing is being submitted; users see the word in `status`."""

    UNAUTHORIZED = "unauthorized"
    API_DOWN = "api_down"


@dataclass(frozen=True, slots=True)
class Blocked:
    """The closed gate: a word for scripts and a sentence for people."""

    code: Reason
    message: str


class Gate:
    """Closed by the first answer that shows that no submission can succeed, and opened again by a free query.

    No job's attempts are used up meanwhile: jobs stay `queued`.
    """

    def __init__(self, context: Context, *, pacer: Pacer, changed: Callable[[], None] = lambda: None) -> None:
        self._context = context
        self._pacer = pacer
        self._changed = changed
        self._closed = Bell()
        self.blocked: Blocked | None = None

    def close(self, code: Reason, message: str) -> None:
        """Nothing is submitted until a probe succeeds. The first reason stays unless a graver one comes."""
        if self.blocked is None or self.blocked.code is not code:
            self.blocked = Blocked(code, message)
            _log.error("gate.closed", reason=code, message=message)
            self._changed()
            self._closed.ring()

    def open(self) -> None:
        """Submissions may go on."""
        if self.blocked is not None:
            _log.info("gate.opened", after=self.blocked.code)
            self.blocked = None
            self._changed()

    def look(self) -> None:
        """Key or address may have changed: a closed gate is probed at once."""
        self._closed.ring()

    async def probe(self) -> None:
        """Asks PicWish, by a query that costs nothing, whether API and key are well, and sets the gate by it."""
        await self._pacer.slot(Urgency.PROBE)
        outcome = await self._context.client.probe()
        match outcome:
            case Healthy():
                self.open()
            case Unauthorized(message=message):
                self.close(Reason.UNAUTHORIZED, message)
            case Busy(retry_after=seconds):
                self._pacer.slow_down(seconds)
            case Unavailable(reason=reason):
                self.close(Reason.API_DOWN, f"PicWish does not answer: {reason}")
            case _:
                assert_never(outcome)

    async def run(self) -> None:
        """Probes while the gate is closed, less and less often, until cancelled."""
        while True:
            await self._closed.wait(_PROBE_MAX)
            pause = _PROBE_FIRST
            while self.blocked is not None:
                await self.probe()
                if self.blocked is not None:
                    await self._closed.wait(pause)
                pause = min(_PROBE_MAX, pause * 2)
