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
_NEW = 2000
# with more new ones than this, the past is counted anew
_NEW_MAX = 6000


@dataclass(frozen=True, slots=True)
class Ledger:
    """Credits of submissions, by what became of them; and what counts against a budget."""

    spent: int = 0
    doubtful: int = 0
    #: submitted, and not yet known
    reserved: int = 0
    #: of those that PicWish took or may have taken, since the day's beginning
    today: int = 0
    month: int = 0

    def __add__(self, other: "Ledger") -> "Ledger":
        return Ledger(
            self.spent + other.spent,
            self.doubtful + other.doubtful,
            self.reserved + other.reserved,
            self.today + other.today,
            self.month + other.month,
        )


@dataclass(frozen=True, slots=True)
class _PastJobs:
    # it is right as of this line of history
    event: int
    # the last job that belongs to it
    upto: int
    counts: Counter[tuple[str, State]]


@dataclass(frozen=True, slots=True)
class _PastCharges:
    event: int
    upto: int
    # where the day and the month began
    since: tuple[float, float]
    ledger: Ledger


@dataclass(frozen=True, slots=True)
class Totals:
    """All jobs by rule and state, and all credits; to be handed to the next count, which it makes short."""

    jobs: Mapping[tuple[str, State], int]
    ledger: Ledger
    _past_jobs: _PastJobs
    _past_charges: _PastCharges


class Census(JournalReader):
    """A reader that counts. All that it tells is of one moment: that of the first question."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """As `JournalReader.open`."""
        census = super().open(path)
        census._rows("BEGIN")
        return census

    def totals_of_all(self, day: float, month: float, before: Totals | None = None) -> Totals:
        """Everything; ``day`` and ``month`` are the moments (Unix seconds) at which those began."""
        event = self.last_event()
        jobs = self._past_of_jobs(event, before._past_jobs if before else None)
        charges = self._past_of_charges(event, (day, month), before._past_charges if before else None)
        counts = jobs.counts + self._counted("NOT INDEXED WHERE id > ?", jobs.upto)
        ledger = charges.ledger + self._ledger("id > ?", charges.upto, (day, month))
        return Totals(counts, ledger, jobs, charges)

    def oldest_queued(self) -> dict[str, float]:
        """When (Unix seconds) the first of each rule's queued jobs was taken in, for rules that have one."""
        sql = (
            "SELECT rule, created_at FROM job WHERE id IN"
            " (SELECT min(id) FROM job WHERE state = 'queued' GROUP BY rule)"
        )
        return {row[0]: row[1] for row in self._rows(sql)}

    def _past_of_jobs(self, event: int, known: _PastJobs | None) -> _PastJobs:
        last = int(self._row("SELECT coalesce(max(id), 0) FROM job")[0])
        if known is not None and last - known.upto <= _NEW_MAX:
            touched = (
                # by the events, of which few are new
                "SELECT EXISTS (SELECT 1 FROM event WHERE id > ? AND +job <= ?)"
            )
            if not self._row(touched, (known.event, known.upto))[0]:
                return replace(known, event=event)
        upto = max(0, last - _NEW)
        # by the index alone: the table's own order would read whole rows
        return _PastJobs(event, upto, self._counted("INDEXED BY job_turn WHERE +id <= ?", upto))

    def _past_of_charges(self, event: int, since: tuple[float, float], known: _PastCharges | None) -> _PastCharges:
        last = int(self._row("SELECT coalesce(max(id), 0) FROM charge")[0])
        if known is not None and known.since == since and last - known.upto <= _NEW_MAX:
            touched = (
                "SELECT EXISTS (SELECT 1 FROM event CROSS JOIN charge ON charge.job = event.job"
                " WHERE event.id > ? AND charge.id <= ?)"
            )
            if not self._row(touched, (known.event, known.upto))[0]:
                return replace(known, event=event)
        upto = max(0, last - _NEW)
        return _PastCharges(event, upto, since, self._ledger("id <= ?", upto, since))

    def _counted(self, which: str, bound: int) -> Counter[tuple[str, State]]:
        rows = self._rows(f"SELECT rule, state, count(*) FROM job {which} GROUP BY state, rule", (bound,))
        return Counter({(row[0], State(row[1])): row[2] for row in rows})

    def _ledger(self, which: str, bound: int, since: tuple[float, float]) -> Ledger:
        row = self._row(
            "SELECT total(credits) FILTER (WHERE state = 'spent'), total(credits) FILTER (WHERE state = 'doubtful'),"
            " total(credits) FILTER (WHERE state = 'reserved'),"
            " total(credits) FILTER (WHERE state <> 'released' AND at >= ?),"
            f" total(credits) FILTER (WHERE state <> 'released' AND at >= ?) FROM charge WHERE {which}",
            (*since, bound),
        )
        return Ledger(*map(int, row))
