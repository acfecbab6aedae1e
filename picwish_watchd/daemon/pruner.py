"""Once a day: forgets the histories that are older than `keep`, in slices that nobody else notices."""

import structlog

from picwish_watchd.errors import JournalTemporaryError
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.state import AT_PICWISH, State

_log = structlog.get_logger()

# seconds after the start: READY never takes as long
_START_DELAY = 60.0
_DAY = 86_400.0
# seconds between looks whether it is quiet
_BUSY_CHECK_INTERVAL = 10.0
# seconds that a quiet moment is waited for; a house that is never quiet is tidied, too
_MAX_BUSY_WAIT = 3600.0
# a slice is followed by a pause that lasts so many times as long
_PAUSE_FACTOR = 20.0

_BUSY_STATES = (*AT_PICWISH, State.DELIVERING)


class JournalPruner:
    """Keeps the journal small. What was paid, and by what an image is recognised, is never forgotten."""

    def __init__(self, context: StepContext) -> None:
        self._context = context

    async def run(self) -> None:
        """Serves until cancelled."""
        clock = self._context.clock
        await clock.sleep(_START_DELAY)
        while True:
            await self.prune()
            await clock.sleep(_DAY)

    async def prune(self, *, at_most: float | None = None) -> None:
        """Forgets all that is old; with ``at_most``, what can be forgotten in so many seconds, and at once."""
        keep = self._context.config.keep
        if keep is None:
            return
        clock, journal = self._context.clock, self._context.journal
        before, began = clock.now() - keep, clock.monotonic()
        upto, removed = 0, 0
        while at_most is None or clock.monotonic() < began + at_most:
            if at_most is None and clock.monotonic() < began + _MAX_BUSY_WAIT and self._is_busy():
                await clock.sleep(_BUSY_CHECK_INTERVAL)
                continue
            started = clock.monotonic()
            try:
                piece = journal.prune_batch(before, upto)
            except JournalTemporaryError as error:
                _log.warning("journal.not_pruned", reason=error.message)
                break
            upto, removed = piece.last_event_id, removed + piece.removed_count
            if piece.is_last:
                break
            await clock.sleep(0 if at_most else _PAUSE_FACTOR * (clock.monotonic() - started))
        if removed:
            _log.info("journal.pruned", lines=removed)

    def _is_busy(self) -> bool:
        return self._context.journal.counts_by_state(_BUSY_STATES).total() > 0
