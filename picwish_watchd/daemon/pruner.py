"""Remove job histories older than ``keep`` from the journal, once a day, in batches short enough to disturb nothing."""

from collections.abc import Callable

import structlog

from picwish_watchd.clock import Clock
from picwish_watchd.config.model import Config
from picwish_watchd.errors import JournalTemporaryError
from picwish_watchd.journal.writer import Journal
from picwish_watchd.state import AT_PICWISH, State

_log = structlog.get_logger()

# Seconds after the start; the daemon is READY by then.
_START_DELAY = 60.0
# Seconds between two runs.
_DAY = 86_400.0
# Seconds between checks whether images are still under way.
_BUSY_CHECK_INTERVAL = 10.0
# Seconds to wait for a moment without work. After that, a daemon that is always busy is pruned as well.
_MAX_BUSY_WAIT = 3600.0
# The pause after a batch, as a multiple of the time that the batch took.
_PAUSE_FACTOR = 20.0

_BUSY_STATES = (*AT_PICWISH, State.DELIVERING)


class JournalPruner:
    """Keeps the journal small. Charges, and the hashes by which a known image is recognised, are never removed."""

    def __init__(self, journal: Journal, clock: Clock, current_config: Callable[[], Config]) -> None:
        """``current_config`` returns the configuration in force, which a reload replaces."""
        self._journal = journal
        self._clock = clock
        self._current_config = current_config

    async def run(self) -> None:
        """Prune once a day until cancelled."""
        await self._clock.sleep(_START_DELAY)
        while True:
            await self.prune()
            await self._clock.sleep(_DAY)

    async def prune(self, *, at_most: float | None = None) -> None:
        """Remove all histories older than ``keep``.

        With ``at_most``, remove what is possible in that many seconds, without pauses, even while images are under way.
        """
        keep = self._current_config().keep
        if keep is None:
            return
        clock = self._clock
        cutoff, started_at = clock.now() - keep, clock.monotonic()
        last_event_id, removed = 0, 0
        while at_most is None or clock.monotonic() < started_at + at_most:
            if at_most is None and clock.monotonic() < started_at + _MAX_BUSY_WAIT and self._is_busy():
                await clock.sleep(_BUSY_CHECK_INTERVAL)
                continue
            batch_started_at = clock.monotonic()
            try:
                batch = self._journal.prune_batch(cutoff, last_event_id)
            except JournalTemporaryError as error:
                _log.warning("journal.not_pruned", reason=error.message)
                break
            last_event_id, removed = batch.last_event_id, removed + batch.removed_count
            if batch.is_last:
                break
            await clock.sleep(0 if at_most else _PAUSE_FACTOR * (clock.monotonic() - batch_started_at))
        if removed:
            _log.info("journal.pruned", lines=removed)

    def _is_busy(self) -> bool:
        return self._journal.counts_by_state(_BUSY_STATES).total() > 0
