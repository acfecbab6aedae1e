"""One look at everything: the journal, the folders, and what the event loop last told of itself."""

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
    """What the journal says. Moments are Unix seconds."""

    totals: JournalTotals
    #: by rule: when the first of its queued jobs was taken in
    oldest_queued: Mapping[str, float]
    #: by rule: images that wait for `approve`
    flood_counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class HealthFindings:
    """What the journal and the folders say of whether work can progress."""

    #: why it does not answer; then the others are not known
    journal_error: str | None
    #: why not even the cheapest image can be paid for
    budget_shortage: str | None
    flood_counts: Mapping[str, int]
    #: by rule: why nothing can be put into its outbox
    outbox_errors: Mapping[str, str]
    spool_error: str | None


class StatusProbe:
    """Asks the journal by connections of its own and the disk, from any thread."""

    def __init__(self, clock: Clock, tally: Counters) -> None:
        self._clock = clock
        self._counters = tally
        self._outbox_probe = OutboxProbe()
        self._last_totals: JournalTotals | None = None
        #: Unix seconds
        self.started_at = clock.now()
        #: set by the event loop; None until it turns
        self.loop_state: LoopState | None = None

    def counter_snapshot(self) -> CounterSnapshot:
        """What this process has counted."""
        return self._counters.snapshot()

    def now(self) -> float:
        """Unix seconds."""
        return self._clock.now()

    def seconds_since_update(self, live: LoopState) -> float:
        """Seconds since the event loop told this."""
        return self._clock.monotonic() - live.captured_at

    def read_journal_figures(self, journal: Path) -> JournalFigures:
        """Raises `JournalError` where the journal does not answer, after 5 s at most where it is locked."""
        census = TotalsReader.open(journal)
        try:
            return JournalFigures(self._read_totals(census), census.oldest_queued(), census.flood_counts())
        finally:
            census.close()

    def spool_usage(self, journal: Path) -> tuple[int, int] | None:
        """Files and bytes of results on their way; None if the folder cannot be read."""
        try:
            return Spool(spool_folder(journal)).disk_usage()
        except OSError:
            return None

    def check_health(self, config: Config, journal: Path) -> HealthFindings:
        """What stands in the way, whatever the gate says."""
        spool = _why_spool_unusable(journal, config.min_free)
        try:
            census = TotalsReader.open(journal)
            try:
                shortage = self._find_budget_shortage(census, config)
                floods = census.flood_counts()
                places = {rule.outbox: _build_known_outbox(census, rule, config) for rule in config.rules}
            finally:
                census.close()
        except JournalError as error:
            return HealthFindings(error.message, None, {}, {}, spool)
        away = self._outbox_probe.find_unusable(places)
        outboxes = {rule.name: f"{rule.outbox}: {away[rule.outbox]}" for rule in config.rules if rule.outbox in away}
        return HealthFindings(None, shortage, floods, outboxes, spool)

    def _read_totals(self, census: TotalsReader) -> JournalTotals:
        now = self._clock.now()
        # other threads may do the same meanwhile: what either leaves behind is right
        totals = self._last_totals = census.read_totals(day_start(now), month_start(now), self._last_totals)
        return totals

    def _find_budget_shortage(self, census: TotalsReader, config: Config) -> str | None:
        """Why not even the cheapest image can be paid for; the exact words cost more than the known totals."""
        price, ledger = min(PRICES[rule.type] for rule in config.rules), self._read_totals(census).credits
        limits = ((ledger.today, config.budget.per_day), (ledger.month, config.budget.per_month))
        if all(most is None or spent + price <= most for spent, most in limits):
            return None
        return CreditBudget(config.budget, self._clock.now()).why_exceeded(census, price)


def _why_spool_unusable(journal: Path, least: int) -> str | None:
    folder = spool_folder(journal)
    try:
        free = Spool(folder).free_space()
    except OSError as error:
        return f"{folder}: {error.strerror or error}"
    return None if free >= least else f"{folder}: {describe_low_space(free, least)}"


def _build_known_outbox(journal: JournalReader, rule: Rule, config: Config) -> KnownOutbox:
    accepted = AcceptedMount(rule.name, journal.folder_mount(rule.outbox))
    return KnownOutbox(rule.outbox, journal.is_known_folder(rule.outbox), accepted, config.min_free)
