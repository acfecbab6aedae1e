"""Figures of the whole journal, for whoever looks on while the daemon works."""

from collections.abc import Mapping
from dataclasses import dataclass

from picwish_watchd.job import State
from picwish_watchd.journal.reader import JournalReader


@dataclass(frozen=True, slots=True)
class Ledger:
    """Credits of all submissions, by what became of them; and what counts against a budget."""

    spent: int
    doubtful: int
    reserved: int  #: submitted, and not yet known
    today: int  #: of those that PicWish took or may have taken, since the day's beginning
    month: int


@dataclass(frozen=True, slots=True)
class Totals:
    """What changes only with a new line of history: `JournalReader.last_event` tells whether it is still right."""

    jobs: Mapping[str, Mapping[State, int]]  #: by rule and state
    ledger: Ledger


class Census(JournalReader):
    """A reader that counts. Its queries read an index or a table once, without sorting."""

    def totals_of_all(self, day: float, month: float) -> Totals:
        """All jobs and all credits; ``day`` and ``month`` are the moments (Unix seconds) at which those began."""
        return Totals(self.counts(), self.ledger(day, month))

    def ledger(self, day: float, month: float) -> Ledger:
        """All credits, by what became of them."""
        row = self._row(
            "SELECT total(credits) FILTER (WHERE state = 'spent'), total(credits) FILTER (WHERE state = 'doubtful'),"
            " total(credits) FILTER (WHERE state = 'reserved'),"
            " total(credits) FILTER (WHERE state <> 'released' AND at >= ?),"
            " total(credits) FILTER (WHERE state <> 'released' AND at >= ?) FROM charge",
            (day, month),
        )
        return Ledger(*map(int, row))

    def oldest_queued(self) -> dict[str, float]:
        """When (Unix seconds) the first of each rule's queued jobs was taken in, for rules that have one."""
        sql = (
            "SELECT rule, created_at FROM job WHERE id IN"
            " (SELECT min(id) FROM job WHERE state = 'queued' GROUP BY rule)"
        )
        return {row[0]: row[1] for row in self._rows(sql)}
