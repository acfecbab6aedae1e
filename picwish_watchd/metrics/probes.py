"""One look at everything: the journal, the folders, and what the event loop last told of itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from picwish_watchd.clock import Clock, day_start, month_start
from picwish_watchd.config.model import Config
from picwish_watchd.counters import Counters, CounterSnapshot
from picwish_watchd.errors import JournalError
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.journal.totals import JournalTotals, TotalsReader
from picwish_watchd.metrics.loop_state import Live
from picwish_watchd.metrics.outbox_probe import Outboxes, Place
from picwish_watchd.outbox.spool import Spool, spool_folder
from picwish_watchd.pricing import PRICES
from picwish_watchd.scheduling.credit_budget import CreditBudget


@dataclass(frozen=True, slots=True)
class Figures:
    """What the journal says. Moments are Unix seconds."""

    totals: JournalTotals
    #: by rule: when the first of its queued jobs was taken in
    oldest_queued: Mapping[str, float]
    #: by rule: images that wait for `approve`
    floods: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Obstacles:
    """What the journal and the folders say of whether work can progress."""

    #: why it does not answer; then the others are not known
    journal: str | None
    #: why not even the cheapest image can be paid for
    shortage: str | None
    floods: Mapping[str, int]
    #: by rule: why nothing can be put into its outbox
    outboxes: Mapping[str, str]
    spool: str | None


class Survey:
    """Asks the journal by connections of its own and the disk, from any thread."""

    def __init__(self, clock: Clock, tally: Counters) -> None:
        self._clock = clock
        self._tally = tally
        self._outboxes = Outboxes()
        self._known: JournalTotals | None = None
        #: Unix seconds
        self.started = clock.now()
        #: set by the event loop; None until it turns
        self.live: Live | None = None

    def counts(self) -> CounterSnapshot:
        """What this process has counted."""
        return self._tally.snapshot()

    def now(self) -> float:
        """Unix seconds."""
        return self._clock.now()

    def silence(self, live: Live) -> float:
        """Seconds since the event loop told this."""
        return self._clock.monotonic() - live.at

    def figures(self, journal: Path) -> Figures:
        """Raises `JournalError` where the journal does not answer, after 5 s at most where it is locked."""
        census = TotalsReader.open(journal)
        try:
            return Figures(self._totals(census), census.oldest_queued(), census.flood_counts())
        finally:
            census.close()

    def spool(self, journal: Path) -> tuple[int, int] | None:
        """Files and bytes of results on their way; None if the folder cannot be read."""
        try:
            return Spool(spool_folder(journal)).disk_usage()
        except OSError:
            return None

    def obstacles(self, config: Config, journal: Path) -> Obstacles:
        """What stands in the way, whatever the gate says."""
        spool = _spool_trouble(journal, config.min_free)
        try:
            census = TotalsReader.open(journal)
            try:
                shortage = self._shortage(census, config)
                floods = census.flood_counts()
                places = {rule.outbox: _place(census, rule.outbox, rule.file_mode, config) for rule in config.rules}
            finally:
                census.close()
        except JournalError as error:
            return Obstacles(error.message, None, {}, {}, spool)
        away = self._outboxes.trouble(places)
        outboxes = {rule.name: f"{rule.outbox}: {away[rule.outbox]}" for rule in config.rules if rule.outbox in away}
        return Obstacles(None, shortage, floods, outboxes, spool)

    def _totals(self, census: TotalsReader) -> JournalTotals:
        now = self._clock.now()
        # other threads may do the same meanwhile: what either leaves behind is right
        totals = self._known = census.read_totals(day_start(now), month_start(now), self._known)
        return totals

    def _shortage(self, census: TotalsReader, config: Config) -> str | None:
        """Why not even the cheapest image can be paid for; the exact words cost more than the known totals."""
        price, ledger = min(PRICES[rule.type] for rule in config.rules), self._totals(census).credits
        limits = ((ledger.today, config.budget.per_day), (ledger.month, config.budget.per_month))
        if all(most is None or spent + price <= most for spent, most in limits):
            return None
        return CreditBudget(config.budget, self._clock.now()).why_exceeded(census, price)


def _spool_trouble(journal: Path, least: int) -> str | None:
    folder = spool_folder(journal)
    try:
        free = Spool(folder).free_space()
    except OSError as error:
        return f"{folder}: {error.strerror or error}"
    return None if free >= least else f"{folder} has only {free / 2**20:.0f} MiB free; min_free is {least / 2**20:.0f}"


def _place(journal: JournalReader, folder: Path, mode: int, config: Config) -> Place:
    seen = journal.is_known_folder(folder)
    return Place(folder, mode, seen, journal.folder_mount(folder), config.min_free)
