"""Read figures and single values of the journal: all that `status` needs, without loading what whole jobs need."""

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from picwish_watchd.journal.connection import open_read_connection, require_journal
from picwish_watchd.journal.credit_sums import CreditSums
from picwish_watchd.journal.integrity import check_wal_present
from picwish_watchd.journal.job_counts import JobCounts, count_jobs, update_counts
from picwish_watchd.journal.locks import DaemonLock, last_durable_event
from picwish_watchd.journal.run_outcomes import RunOutcomes
from picwish_watchd.journal.schema import migrate
from picwish_watchd.journal.sqlite_errors import sqlite_errors_as_journal_errors
from picwish_watchd.state import AT_PICWISH, UNFINISHED, State

# Words of this program, so they need no parameters, and SQLite can choose the index of states.
_COUNT_AT_PICWISH = f"""SELECT count(*) FROM job WHERE state IN ({", ".join(f"'{state}'" for state in AT_PICWISH)})"""


class BacklogItem(NamedTuple):
    """An unfinished image, with only what a forecast needs. Times are Unix seconds."""

    created_at: float
    #: What it waits for.
    note: str | None
    not_before: float | None


class SpendingBucket(NamedTuple):
    """The submissions of one rule in a quarter of an hour.

    All local times differ from UTC by a multiple of that, so that buckets add up to local days.
    """

    #: Unix seconds of its beginning.
    at: float
    rule: str
    images: int
    #: Of submissions that PicWish accepted or may have accepted.
    credits: int
    #: The part of `credits` for which it cannot be known whether PicWish charged.
    in_doubt: int


class StatusReader:
    """Read access to figures. `open` makes a reader with a connection of its own; `JournalReader` adds the jobs."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.path = path
        self._connection = connection
        connection.row_factory = sqlite3.Row
        self._credit_sums = CreditSums(connection, self.fetch_row)
        self._job_counts: JobCounts | None = None
        self._run_outcomes = RunOutcomes(0)
        # (version of the journal, images that wait for `approve`, by rule)
        self._flood_cache: tuple[tuple[int, int], dict[str, int]] = ((-1, -1), {})

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the journal for reading, beside a running daemon or without one.

        Raises `JournalError` if there is no journal, or if it is damaged or newer than this program.
        """
        require_journal(path)
        check_wal_present(path)
        with sqlite_errors_as_journal_errors(path):
            witness = last_durable_event(path)
            try:
                connection = open_read_connection(path, "mode=ro", witness)
            except sqlite3.OperationalError:
                # In a folder that this user may not write, SQLite cannot make the -shm; without a daemon there is none
                # to share, and nothing changes the file.
                if DaemonLock(path).owner_pid() is not None:
                    raise
                connection = open_read_connection(path, "immutable=1")
        return cls(connection, path)

    @classmethod
    def empty(cls, path: Path) -> Self:
        """Return a reader of an empty journal, as one at ``path`` would be before the first start."""
        connection = sqlite3.connect(":memory:", isolation_level=None)
        migrate(connection, 0)
        return cls(connection, path)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def counts_by_rule(self) -> dict[str, dict[State, int]]:
        """Return the number of jobs by rule and state; numbers that are 0 are left out."""
        return self.job_counts().by_rule()

    def job_counts(self) -> JobCounts:
        """Return the number of jobs by rule and state, and the event up to which it is counted.

        Only what has changed since the last call is counted.
        """
        # What an open transaction has done may be rolled back, and must not be cached.
        if self._connection.in_transaction:
            return count_jobs(self.fetch_rows)
        known = self._job_counts
        self._job_counts = (
            count_jobs(self.fetch_rows)
            if known is None
            else update_counts(known, self.last_event_id(), self.fetch_rows)
        )
        return self._job_counts

    def counts_by_state(self, states: Sequence[State]) -> Counter[State]:
        """Return the number of jobs in each of ``states``."""
        counts: Counter[State] = Counter()
        for (_, state), number in self.job_counts().jobs.items():
            if state in states:
                counts[state] += number
        return +counts

    def adopt_counts(self, counts: JobCounts, credits_by_start: Mapping[float, int]) -> None:
        """Start from what the daemon counted in this journal, so that only what has changed since is counted here.

        ``credits_by_start``: the credits since some moments (Unix seconds), as of the same event as ``counts``.
        """
        self._job_counts = counts
        self._credit_sums.adopt_sums(credits_by_start, counts.last_event_id)

    def count_unfinished(self) -> int:
        """Return the number of jobs that are not finished."""
        return self.counts_by_state(UNFINISHED).total()

    def count_at_picwish(self) -> int:
        """Return the number of tasks that PicWish works on, may work on, or holds the result of."""
        return int(self.fetch_row(_COUNT_AT_PICWISH)[0])

    def credits_since(self, moment: float) -> int:
        """Return the credits of all submissions since ``moment`` that PicWish accepted or may have accepted."""
        return self._credit_sums.credits_since(moment)

    def spending_buckets(self) -> list[SpendingBucket]:
        """Return all submissions that PicWish accepted or may have accepted, summed by rule and quarter of an hour."""
        rows = self.fetch_rows(
            "SELECT CAST(at AS INTEGER) / 900 * 900.0, rule, count(*), sum(credits),"
            " sum(iif(state = 'doubtful', credits, 0)) FROM charge WHERE state <> 'released' GROUP BY 1, 2"
        )
        return [SpendingBucket(*row) for row in rows]

    def count_arrivals(self, rule: str, moment: float, at_most: int) -> int:
        """Return the number of images of ``rule`` added since ``moment`` that no flood holds, at most ``at_most``."""
        sql = "SELECT 1 FROM job WHERE rule = ? AND created_at >= ? AND flood = 0 AND sha256 IS NOT NULL LIMIT ?"
        return len(self.fetch_rows(sql, (rule, moment, at_most)))

    def is_flood(self, job_id: int) -> bool:
        """Return whether the job waits for `approve`."""
        return bool(self.fetch_rows("SELECT 1 FROM job WHERE id = ? AND flood = 1 AND state = 'queued'", (job_id,)))

    def list_backlog(self, state: State, rule: str, limit: int, *, excluding: int = 0) -> list[BacklogItem]:
        """Return the oldest images of ``rule`` in ``state``, without job ``excluding`` and those that a flood holds."""
        where = "WHERE state = ? AND rule = ? AND flood = 0 AND id <> ? ORDER BY id LIMIT ?"
        rows = self.fetch_rows(f"SELECT created_at, note, not_before FROM job {where}", (state, rule, excluding, limit))
        return [BacklogItem(*row) for row in rows]

    def recent_submission_times(self, limit: int) -> list[float]:
        """Return when the last images were sent that PicWish accepted or may have, newest first (Unix seconds)."""
        sql = "SELECT at FROM charge WHERE state <> 'released' ORDER BY id DESC LIMIT ?"
        return [row[0] for row in self.fetch_rows(sql, (limit,))]

    def flood_counts(self) -> dict[str, int]:
        """Return the number of images that wait for `approve`, by rule; they are counted again only after a change."""
        version = self._connection.total_changes, self.data_version()
        if version == self._flood_cache[0] and not self._connection.in_transaction:
            return dict(self._flood_cache[1])
        # The + keeps SQLite from going through all queued jobs instead (sqlite.org/optoverview.html#uplus).
        sql = "SELECT rule, count(*) FROM job WHERE flood = 1 AND +state = 'queued' GROUP BY rule"
        counts = {row[0]: row[1] for row in self.fetch_rows(sql)}
        # What an open transaction has done may be rolled back, and must not be cached.
        if not self._connection.in_transaction:
            self._flood_cache = version, counts
        return dict(counts)

    def recent_task_durations(self, task_type: int, limit: int) -> list[float]:
        """Return how many seconds PicWish worked on each of the last ``limit`` tasks of a type, newest first."""
        rows = self.fetch_rows(
            "SELECT task_seconds FROM job WHERE type = ? AND task_seconds IS NOT NULL ORDER BY id DESC LIMIT ?",
            (task_type, limit),
        )
        return [row[0] for row in rows]

    def last_event_id(self) -> int:
        """Return the id of the newest event, or 0 in an empty journal."""
        return int(self.fetch_row("SELECT coalesce(max(id), 0) FROM event")[0])

    def counts_since(self, event: int) -> dict[State, int]:
        """Return the number of jobs by state, of those that are unfinished or have an event after ``event``.

        Repeated calls with the same ``event`` look up only what is new.
        """
        # What an open transaction has done may be rolled back, and must not be cached.
        in_transaction = self._connection.in_transaction
        outcomes = RunOutcomes(event) if in_transaction or self._run_outcomes.event != event else self._run_outcomes
        if not in_transaction:
            self._run_outcomes = outcomes
        return self.counts_by_state(UNFINISHED) + outcomes.count_ended(self.last_event_id(), self.fetch_rows)

    def rule_settings(self, rule: str) -> str | None:
        """Return the last settings of a rule as JSON, also of one that left the configuration; None if unknown."""
        rows = self.fetch_rows("SELECT settings FROM rule WHERE name = ?", (rule,))
        return str(rows[0][0]) if rows else None

    def daemon_report(self) -> str | None:
        """Return the last report of a daemon as JSON, or None if there is none."""
        rows = self.fetch_rows("SELECT text FROM report WHERE id = 1")
        return str(rows[0][0]) if rows else None

    def data_version(self) -> int:
        """Return a number that changes when another process has changed the journal (PRAGMA data_version)."""
        return int(self.fetch_row("PRAGMA data_version")[0])

    def fetch_rows(self, sql: str, values: Sequence[object] | Mapping[str, object] = ()) -> list[sqlite3.Row]:
        """Run a query of this package and return its rows. Raises `JournalError` where SQLite fails."""
        with sqlite_errors_as_journal_errors(self.path):
            return self._connection.execute(sql, values).fetchall()

    def fetch_row(self, sql: str, values: Sequence[object] = ()) -> sqlite3.Row:
        """Run a query that has at least one row, and return the first. Raises `JournalError` where SQLite fails."""
        row: sqlite3.Row = self.fetch_rows(sql, values)[0]
        return row
