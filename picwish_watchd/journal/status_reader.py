"""What the journal tells in numbers and single words: all that `status` needs, which does without whole jobs."""

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
from picwish_watchd.state import UNFINISHED, State


class BacklogItem(NamedTuple):
    """An image on its way, with just what a forecast needs. Times are Unix seconds."""

    created_at: float
    #: what it waits for
    note: str | None
    not_before: float | None


class SpendingBucket(NamedTuple):
    """What was submitted under one rule in a quarter of an hour, by which all local times differ from UTC."""

    #: Unix seconds: its beginning
    at: float
    rule: str
    images: int
    #: that PicWish took or may have taken
    credits: int
    #: of those
    in_doubt: int


class StatusReader:
    """Read access to figures. `open` gives a reader of its own; `JournalReader` adds the jobs."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.path = path
        self._connection = connection
        connection.row_factory = sqlite3.Row
        self._credit_sums = CreditSums(connection, self.fetch_row)
        self._job_counts: JobCounts | None = None
        self._run_outcomes = RunOutcomes(0)
        # as of a version of the journal
        self._flood_cache: tuple[tuple[int, int], dict[str, int]] = ((-1, -1), {})

    @classmethod
    def open(cls, path: Path) -> Self:
        """A read-only view, beside a running daemon or without one.

        Raises `JournalError` if there is no journal, or it is damaged or newer than this program.
        """
        require_journal(path)
        check_wal_present(path)
        with sqlite_errors_as_journal_errors(path):
            witness = last_durable_event(path)
            try:
                connection = open_read_connection(path, "mode=ro", witness)
            except sqlite3.OperationalError:
                # A folder that this user may not write: without a daemon there is no -shm to share.
                if DaemonLock(path).owner_pid() is not None:
                    raise
                connection = open_read_connection(path, "immutable=1")
        return cls(connection, path)

    @classmethod
    def empty(cls, path: Path) -> Self:
        """What a journal at ``path`` would tell in which nothing has happened yet."""
        connection = sqlite3.connect(":memory:", isolation_level=None)
        migrate(connection, 0)
        return cls(connection, path)

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def counts_by_rule(self) -> dict[str, dict[State, int]]:
        """Number of jobs by rule and state."""
        return self.job_counts().by_rule()

    def job_counts(self) -> JobCounts:
        """The same, and as of when; only what has changed since the last time is counted."""
        # it may be rolled back: nothing of it is to be remembered
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
        """Number of jobs in each of ``states``."""
        found: Counter[State] = Counter()
        for (_, state), number in self.job_counts().jobs.items():
            if state in states:
                found[state] += number
        return +found

    def adopt_counts(self, stock: JobCounts, credits: Mapping[float, int]) -> None:
        """Takes over what the daemon counted in this journal: jobs, and credits since some moments, both as of a line
        of history. What has changed since is counted here.
        """
        self._job_counts = stock
        self._credit_sums.adopt_sums(credits, stock.last_event_id)

    def count_unfinished(self) -> int:
        """Number of jobs that are still on their way."""
        return self.counts_by_state(UNFINISHED).total()

    def count_at_picwish(self) -> int:
        """Number of tasks that PicWish works on, may work on, or holds the result of."""
        return int(self.fetch_row("SELECT count(*) FROM job WHERE state IN ('submitting', 'pending', 'fetching')")[0])

    def credits_since(self, moment: float) -> int:
        """Credits of all submissions from ``moment`` on that PicWish took or may have taken."""
        return self._credit_sums.credits_since(moment)

    def spending_buckets(self) -> list[SpendingBucket]:
        """All that was ever submitted and that PicWish took or may have taken."""
        rows = self.fetch_rows(
            "SELECT CAST(at AS INTEGER) / 900 * 900.0, rule, count(*), sum(credits),"
            " sum(iif(state = 'doubtful', credits, 0)) FROM charge WHERE state <> 'released' GROUP BY 1, 2"
        )
        return [SpendingBucket(*row) for row in rows]

    def count_arrivals(self, rule: str, moment: float, at_most: int) -> int:
        """Number of images of ``rule`` that came from ``moment`` on and may go; up to ``at_most`` are counted."""
        sql = "SELECT 1 FROM job WHERE rule = ? AND created_at >= ? AND flood = 0 AND sha256 IS NOT NULL LIMIT ?"
        return len(self.fetch_rows(sql, (rule, moment, at_most)))

    def is_flood(self, job_id: int) -> bool:
        """Whether the job waits for `approve`."""
        return bool(self.fetch_rows("SELECT 1 FROM job WHERE id = ? AND flood = 1 AND state = 'queued'", (job_id,)))

    def list_backlog(self, state: State, rule: str, limit: int, *, but_for: int = 0) -> list[BacklogItem]:
        """The first images of ``rule`` in ``state``, without job ``but_for`` and those that a flood holds."""
        where = "WHERE state = ? AND rule = ? AND flood = 0 AND id <> ? ORDER BY id LIMIT ?"
        rows = self.fetch_rows(f"SELECT created_at, note, not_before FROM job {where}", (state, rule, but_for, limit))
        return [BacklogItem(*row) for row in rows]

    def recent_submission_times(self, limit: int) -> list[float]:
        """When the last images were sent that PicWish took or may have taken, newest first (Unix seconds)."""
        sql = "SELECT at FROM charge WHERE state <> 'released' ORDER BY id DESC LIMIT ?"
        return [row[0] for row in self.fetch_rows(sql, (limit,))]

    def flood_counts(self) -> dict[str, int]:
        """Number of images that wait for `approve`, by rule; counted anew only where the journal has changed."""
        version = self._connection.total_changes, self.data_version()
        if version == self._flood_cache[0] and not self._connection.in_transaction:
            return dict(self._flood_cache[1])
        # + keeps SQLite from going through all that is queued instead (sqlite.org/optoverview.html#uplus)
        sql = "SELECT rule, count(*) FROM job WHERE flood = 1 AND +state = 'queued' GROUP BY rule"
        found = {row[0]: row[1] for row in self.fetch_rows(sql)}
        # it may be rolled back
        if not self._connection.in_transaction:
            self._flood_cache = version, found
        return dict(found)

    def recent_task_durations(self, model: int, limit: int) -> list[float]:
        """How long PicWish worked on the last ``limit`` tasks of a ``type``, newest first."""
        rows = self.fetch_rows(
            "SELECT task_seconds FROM job WHERE type = ? AND task_seconds IS NOT NULL ORDER BY id DESC LIMIT ?",
            (model, limit),
        )
        return [row[0] for row in rows]

    def last_event_id(self) -> int:
        """The number of the newest line of history; 0 in an empty journal."""
        return int(self.fetch_row("SELECT coalesce(max(id), 0) FROM event")[0])

    def counts_since(self, event: int) -> dict[State, int]:
        """Number of jobs by state, of those that are on their way or have a line of history after ``event``.

        Asked again for the same ``event``, only what came since the last time is looked up.
        """
        # it may be rolled back: nothing of it is to be remembered
        within = self._connection.in_transaction
        since = RunOutcomes(event) if within or self._run_outcomes.event != event else self._run_outcomes
        if not within:
            self._run_outcomes = since
        return self.counts_by_state(UNFINISHED) + since.count_ended(self.last_event_id(), self.fetch_rows)

    def rule_settings(self, rule: str) -> str | None:
        """The last settings of a rule as JSON, also of one that left the configuration."""
        rows = self.fetch_rows("SELECT settings FROM rule WHERE name = ?", (rule,))
        return str(rows[0][0]) if rows else None

    def daemon_report(self) -> str | None:
        """What the daemon last said of itself, as JSON."""
        rows = self.fetch_rows("SELECT text FROM report WHERE id = 1")
        return str(rows[0][0]) if rows else None

    def data_version(self) -> int:
        """Changes when another process has changed the journal (PRAGMA data_version)."""
        return int(self.fetch_row("PRAGMA data_version")[0])

    def fetch_rows(self, sql: str, values: Sequence[object] | Mapping[str, object] = ()) -> list[sqlite3.Row]:
        with sqlite_errors_as_journal_errors(self.path):
            return self._connection.execute(sql, values).fetchall()

    def fetch_row(self, sql: str, values: Sequence[object] = ()) -> sqlite3.Row:
        row: sqlite3.Row = self.fetch_rows(sql, values)[0]
        return row
