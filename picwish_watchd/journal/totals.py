"""Figures of the whole journal, for whoever looks on while the daemon works.

To count everything takes 0.1 s with 100,000 jobs. But what is old stands still, and every change of it has a line of
history: so the past is counted once, up to some job and some charge, and counted anew only when a later line is about
it. What is new is counted each time.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from picwish_watchd.job import State
from picwish_watchd.journal.reader import JournalReader

# jobs, and charges, that do not count as past when that is counted
_RECENT_ROWS = 2000
# with more new ones than this, the past is counted anew
_RECENT_ROWS_MAX = 6000


@dataclass(frozen=True, slots=True)
class CreditTotals:
    """Credits of submissions, by what became of them; and what counts against a budget."""

    spent: int = 0
    doubtful: int = 0
    #: submitted, and not yet known
    reserved: int = 0
    #: of those that PicWish took or may have taken, since the day's beginning
    today: int = 0
    month: int = 0

    def __add__(self, other: "CreditTotals") -> "CreditTotals":
        return CreditTotals(
            self.spent + other.spent,
            self.doubtful + other.doubtful,
            self.reserved + other.reserved,
            self.today + other.today,
            self.month + other.month,
        )


@dataclass(frozen=True, slots=True)
class _JobBaseline:
    # it is right as of this line of history
    event: int
    # the last job that belongs to it
    last_job_id: int
    counts: Counter[tuple[str, State]]


@dataclass(frozen=True, slots=True)
class _ChargeBaseline:
    event: int
    last_charge_id: int
    # where the day and the month began
    period_starts: tuple[float, float]
    credits: CreditTotals


@dataclass(frozen=True, slots=True)
class JournalTotals:
    """All jobs by rule and state, and all credits; to be handed to the next count, which it makes short."""

    jobs: Mapping[tuple[str, State], int]
    credits: CreditTotals
    _job_baseline: _JobBaseline
    _charge_baseline: _ChargeBaseline


class TotalsReader(JournalReader):
    """A reader that counts. All that it tells is of one moment: that of the first question."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """As `JournalReader.open`."""
        census = super().open(path)
        census.fetch_rows("BEGIN")
        return census

    def read_totals(self, day: float, month: float, before: JournalTotals | None = None) -> JournalTotals:
        """Everything; ``day`` and ``month`` are the moments (Unix seconds) at which those began."""
        event = self.last_event_id()
        jobs = self._update_job_baseline(event, before._job_baseline if before else None)
        charges = self._update_charge_baseline(event, (day, month), before._charge_baseline if before else None)
        counts = jobs.counts + self._count_jobs("NOT INDEXED WHERE id > ?", jobs.last_job_id)
        ledger = charges.credits + self._sum_credits("id > ?", charges.last_charge_id, (day, month))
        return JournalTotals(counts, ledger, jobs, charges)

    def oldest_queued(self) -> dict[str, float]:
        """When (Unix seconds) the first of each rule's queued jobs was taken in, for rules that have one."""
        sql = (
            "SELECT rule, created_at FROM job WHERE id IN"
            " (SELECT min(id) FROM job WHERE state = 'queued' GROUP BY rule)"
        )
        return {row[0]: row[1] for row in self.fetch_rows(sql)}

    def _update_job_baseline(self, event: int, known: _JobBaseline | None) -> _JobBaseline:
        last = int(self.fetch_row("SELECT coalesce(max(id), 0) FROM job")[0])
        if known is not None and last - known.last_job_id <= _RECENT_ROWS_MAX:
            touched = (
                # by the events, of which few are new
                "SELECT EXISTS (SELECT 1 FROM event WHERE id > ? AND +job <= ?)"
            )
            if not self.fetch_row(touched, (known.event, known.last_job_id))[0]:
                return replace(known, event=event)
        upto = max(0, last - _RECENT_ROWS)
        # by the index alone: the table's own order would read whole rows
        return _JobBaseline(event, upto, self._count_jobs("INDEXED BY job_turn WHERE +id <= ?", upto))

    def _update_charge_baseline(
        self, event: int, since: tuple[float, float], known: _ChargeBaseline | None
    ) -> _ChargeBaseline:
        last = int(self.fetch_row("SELECT coalesce(max(id), 0) FROM charge")[0])
        if known is not None and known.period_starts == since and last - known.last_charge_id <= _RECENT_ROWS_MAX:
            touched = (
                "SELECT EXISTS (SELECT 1 FROM event CROSS JOIN charge ON charge.job = event.job"
                " WHERE event.id > ? AND charge.id <= ?)"
            )
            if not self.fetch_row(touched, (known.event, known.last_charge_id))[0]:
                return replace(known, event=event)
        upto = max(0, last - _RECENT_ROWS)
        return _ChargeBaseline(event, upto, since, self._sum_credits("id <= ?", upto, since))

    def _count_jobs(self, which: str, bound: int) -> Counter[tuple[str, State]]:
        rows = self.fetch_rows(f"SELECT rule, state, count(*) FROM job {which} GROUP BY state, rule", (bound,))
        return Counter({(row[0], State(row[1])): row[2] for row in rows})

    def _sum_credits(self, which: str, bound: int, since: tuple[float, float]) -> CreditTotals:
        row = self.fetch_row(
            "SELECT total(credits) FILTER (WHERE state = 'spent'), total(credits) FILTER (WHERE state = 'doubtful'),"
            " total(credits) FILTER (WHERE state = 'reserved'),"
            " total(credits) FILTER (WHERE state <> 'released' AND at >= ?),"
            f" total(credits) FILTER (WHERE state <> 'released' AND at >= ?) FROM charge WHERE {which}",
            (*since, bound),
        )
        return CreditTotals(*map(int, row))
