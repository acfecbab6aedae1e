"""Read the figures for metrics and health: from the journal, the folders, and the last state of the event loop."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from picwish_watchd.clock import Clock, day_start, month_start
from picwish_watchd.config.model import Config
from picwish_watchd.config.schema import Rule
from picwish_watchd.counters import Counters, CounterSnapshot
from picwish_watchd.errors import JournalError
from picwish_watchd.fs.mounts import AcceptedMount
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.journal.totals import JournalTotals, TotalsReader
from picwish_watchd.metrics.loop_state import LoopState
from picwish_watchd.metrics.outbox_probe import KnownOutbox, OutboxProbe
from picwish_watchd.outbox.availability import describe_low_space
from picwish_watchd.outbox.spool import Spool, spool_folder
from picwish_watchd.pricing import PRICES
from picwish_watchd.scheduling.credit_budget import CreditBudget


@dataclass(frozen=True, slots=True)
class JournalFigures:
    """What the journal counts. Times are Unix seconds."""

    totals: JournalTotals
    #: By rule: when its oldest queued job was admitted.
    oldest_queued: Mapping[str, float]
    #: By rule: number of images that wait for `approve`.
    flood_counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class HealthFindings:
    """What the journal and the folders show about whether work can continue."""

    #: Why the journal does not answer; except ``spool_error``, the other facts are not known then.
    journal_error: str | None
    #: Why not even the cheapest image can be paid for.
    budget_shortage: str | None
    flood_counts: Mapping[str, int]
    #: By rule: why nothing can be put into its outbox.
    outbox_errors: Mapping[str, str]
    spool_error: str | None


class StatusProbe:
    """Reads the journal through connections of its own, and the disk. Its methods may be called from any thread."""

    def __init__(self, clock: Clock, counters: Counters) -> None:
        self._clock = clock
        self._counters = counters
        self._outbox_probe = OutboxProbe()
        self._last_totals: JournalTotals | None = None
        #: Unix seconds.
        self.started_at = clock.now()
        #: Set by the event loop; None until it runs.
        self.loop_state: LoopState | None = None

    def counter_snapshot(self) -> CounterSnapshot:
        """Return what this process has counted so far."""
        return self._counters.snapshot()

    def now(self) -> float:
        """Return the time in Unix seconds."""
        return self._clock.now()

    def seconds_since_update(self, loop_state: LoopState) -> float:
        """Return the seconds since the event loop captured this state."""
        return self._clock.monotonic() - loop_state.captured_at

    def read_journal_figures(self, journal: Path) -> JournalFigures:
        """Read the figures of the journal.

        Raises `JournalError` if the journal does not answer; if it is locked, after 5 s at most.
        """
        reader = TotalsReader.open(journal)
        try:
            return JournalFigures(self._read_totals(reader), reader.oldest_queued(), reader.flood_counts())
        finally:
            reader.close()

    def spool_usage(self, journal: Path) -> tuple[int, int] | None:
        """Return the number of files in the spool and their bytes; None if the folder cannot be read."""
        try:
            return Spool(spool_folder(journal)).disk_usage()
        except OSError:
            return None

    def check_health(self, config: Config, journal: Path) -> HealthFindings:
        """Check the journal, the budget, the outboxes and the spool, independently of the gate."""
        spool_error = _why_spool_unusable(journal, config.min_free)
        try:
            reader = TotalsReader.open(journal)
            try:
                shortage = self._find_budget_shortage(reader, config)
                flood_counts = reader.flood_counts()
                outboxes = {rule.outbox: _build_known_outbox(reader, rule, config.min_free) for rule in config.rules}
            finally:
                reader.close()
        except JournalError as error:
            return HealthFindings(error.message, None, {}, {}, spool_error)
        unusable = self._outbox_probe.find_unusable(outboxes)
        errors = {
            rule.name: f"{rule.outbox}: {unusable[rule.outbox]}" for rule in config.rules if rule.outbox in unusable
        }
        return HealthFindings(None, shortage, flood_counts, errors, spool_error)

    def _read_totals(self, reader: TotalsReader) -> JournalTotals:
        now = self._clock.now()
        # Other threads may do this at the same time. The totals that any of them leaves behind are right.
        totals = self._last_totals = reader.read_totals(day_start(now), month_start(now), self._last_totals)
        return totals

    def _find_budget_shortage(self, reader: TotalsReader, config: Config) -> str | None:
        """Return why not even the cheapest image can be paid for, or None.

        The known totals decide. Only if they show a shortage is the journal asked again, for the exact sentence.
        """
        price, ledger = min(PRICES[rule.type] for rule in config.rules), self._read_totals(reader).credits
        limits = ((ledger.today, config.budget.per_day), (ledger.month, config.budget.per_month))
        if all(limit is None or spent + price <= limit for spent, limit in limits):
            return None
        return CreditBudget(config.budget, self._clock.now()).why_exceeded(reader, price)


def _why_spool_unusable(journal: Path, min_free: int) -> str | None:
    folder = spool_folder(journal)
    try:
        free = Spool(folder).free_space()
    except OSError as error:
        return f"{folder}: {error.strerror or error}"
    return None if free >= min_free else f"{folder}: {describe_low_space(free, min_free)}"


def _build_known_outbox(journal: JournalReader, rule: Rule, min_free: int) -> KnownOutbox:
    accepted = AcceptedMount(rule.name, journal.folder_mount(rule.outbox))
    return KnownOutbox(rule.outbox, journal.is_known_folder(rule.outbox), accepted, min_free)
