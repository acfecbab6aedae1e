"""What the journal tells in numbers and single words: all that `status` needs, which does without whole jobs."""

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from picwish_watchd.journal.connection import connect_checked, require
from picwish_watchd.journal.credit_sums import Sums
from picwish_watchd.journal.integrity import refuse_lost_wal
from picwish_watchd.journal.job_counts import Stock, brought_up_to_date, counted
from picwish_watchd.journal.locks import DaemonLock, witnessed
from picwish_watchd.journal.run_outcomes import Since
from picwish_watchd.journal.schema import migrate
from picwish_watchd.journal.sqlite_errors import translated
from picwish_watchd.state import UNFINISHED, State


class Waiting(NamedTuple):
    """An image on its way, with just what a forecast needs. Times are Unix seconds."""

    created_at: float
    #: what it waits for
    note: str | None
    not_before: float | None


class Spent(NamedTuple):
    """What was submitted under one rule in a quarter of an hour, by which all local times differ from UTC."""

    #: Unix seconds: its beginning
    at: float
    rule: str
    images: int
    #: that PicWish took or may have taken
    credits: int
    #: of those
    in_doubt: int


class Overview:
    """Read access to figures. `open` gives a reader of its own; `JournalReader` adds the jobs."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.path = path
        self._connection = connection
        connection.row_factory = sqlite3.Row
        self._sums = Sums(connection, self._row)
        self._stock: Stock | None = None
        self._since = Since(0)
        # as of a version of the journal
        self._floods: tuple[tuple[int, int], dict[str, int]] = ((-1, -1), {})

    @classmethod
    def open(cls, path: Path) -> Self:
        """A read-only view, beside a running daemon or without one.

        Raises `JournalError` if there is no journal, or it is damaged or newer than this program.
        """
        require(path)
        refuse_lost_wal(path)
        with translated(path):
            witness = witnessed(path)
            try:
                connection = connect_checked(path, "mode=ro", witness)
            except sqlite3.OperationalError:
                # A folder that this user may not write: without a daemon there is no -shm to share.
                if DaemonLock(path).owner() is not None:
                    raise
                connection = connect_checked(path, "immutable=1")
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

    def counts(self) -> dict[str, dict[State, int]]:
        """Number of jobs by rule and state."""
        return self.stock().by_rule()

    def stock(self) -> Stock:
        """The same, and as of when; only what has changed since the last time is counted."""
        # it may be rolled back: nothing of it is to be remembered
        if self._connection.in_transaction:
            return counted(self._rows)
        known = self._stock
        self._stock = counted(self._rows) if known is None else brought_up_to_date(known, self.last_event(), self._rows)
        return self._stock

    def totals(self, states: Sequence[State]) -> Counter[State]:
        """Number of jobs in each of ``states``."""
        found: Counter[State] = Counter()
        for (_, state), number in self.stock().jobs.items():
            if state in states:
                found[state] += number
        return +found

    def believe(self, stock: Stock, credits: Mapping[float, int]) -> None:
        """Takes over what the daemon counted in this journal: jobs, and credits since some moments, both as of a line
        of history. What has changed since is counted here.
        """
        self._stock = stock
        self._sums.believe(credits, stock.event)

    def unfinished(self) -> int:
        """Number of jobs that are still on their way."""
        return self.totals(UNFINISHED).total()

    def unsaved(self) -> int:
        """Number of tasks that PicWish works on, may work on, or holds the result of."""
        return int(self._row("SELECT count(*) FROM job WHERE state IN ('submitting', 'pending', 'fetching')")[0])

    def credits_since(self, moment: float) -> int:
        """Credits of all submissions from ``moment`` on that PicWish took or may have taken."""
        return self._sums.since(moment)

    def spent(self) -> list[Spent]:
        """All that was ever submitted and that PicWish took or may have taken."""
        rows = self._rows(
            "SELECT CAST(at AS INTEGER) / 900 * 900.0, rule, count(*), sum(credits),"
            " sum(iif(state = 'doubtful', credits, 0)) FROM charge WHERE state <> 'released' GROUP BY 1, 2"
        )
        return [Spent(*row) for row in rows]

    def arrived_since(self, rule: str, moment: float, at_most: int) -> int:
        """Number of images of ``rule`` that came from ``moment`` on and may go; up to ``at_most`` are counted."""
        sql = "SELECT 1 FROM job WHERE rule = ? AND created_at >= ? AND flood = 0 AND sha256 IS NOT NULL LIMIT ?"
        return len(self._rows(sql, (rule, moment, at_most)))

    def is_flood(self, job_id: int) -> bool:
        """Whether the job waits for `approve`."""
        return bool(self._rows("SELECT 1 FROM job WHERE id = ? AND flood = 1 AND state = 'queued'", (job_id,)))

    def first(self, state: State, rule: str, limit: int, *, but_for: int = 0) -> list[Waiting]:
        """The first images of ``rule`` in ``state``, without job ``but_for`` and those that a flood holds."""
        where = "WHERE state = ? AND rule = ? AND flood = 0 AND id <> ? ORDER BY id LIMIT ?"
        rows = self._rows(f"SELECT created_at, note, not_before FROM job {where}", (state, rule, but_for, limit))
        return [Waiting(*row) for row in rows]

    def submissions(self, limit: int) -> list[float]:
        """When the last images were sent that PicWish took or may have taken, newest first (Unix seconds)."""
        sql = "SELECT at FROM charge WHERE state <> 'released' ORDER BY id DESC LIMIT ?"
        return [row[0] for row in self._rows(sql, (limit,))]

    def floods(self) -> dict[str, int]:
        """Number of images that wait for `approve`, by rule; counted anew only where the journal has changed."""
        version = self._connection.total_changes, self.data_version()
        if version == self._floods[0] and not self._connection.in_transaction:
            return dict(self._floods[1])
        # + keeps SQLite from going through all that is queued instead (sqlite.org/optoverview.html#uplus)
        sql = "SELECT rule, count(*) FROM job WHERE flood = 1 AND +state = 'queued' GROUP BY rule"
        found = {row[0]: row[1] for row in self._rows(sql)}
        # it may be rolled back
        if not self._connection.in_transaction:
            self._floods = version, found
        return dict(found)

    def task_seconds(self, model: int, limit: int) -> list[float]:
        """How long PicWish worked on the last ``limit`` tasks of a ``type``, newest first."""
        rows = self._rows(
            "SELECT task_seconds FROM job WHERE type = ? AND task_seconds IS NOT NULL ORDER BY id DESC LIMIT ?",
            (model, limit),
        )
        return [row[0] for row in rows]

    def last_event(self) -> int:
        """The number of the newest line of history; 0 in an empty journal."""
        return int(self._row("SELECT coalesce(max(id), 0) FROM event")[0])

    def counts_since(self, event: int) -> dict[State, int]:
        """Number of jobs by state, of those that are on their way or have a line of history after ``event``.

        Asked again for the same ``event``, only what came since the last time is looked up.
        """
        # it may be rolled back: nothing of it is to be remembered
        within = self._connection.in_transaction
        since = Since(event) if within or self._since.event != event else self._since
        if not within:
            self._since = since
        return self.totals(UNFINISHED) + since.ended(self.last_event(), self._rows)

    def settings_of(self, rule: str) -> str | None:
        """The last settings of a rule as JSON, also of one that left the configuration."""
        rows = self._rows("SELECT settings FROM rule WHERE name = ?", (rule,))
        return str(rows[0][0]) if rows else None

    def report(self) -> str | None:
        """What the daemon last said of itself, as JSON."""
        rows = self._rows("SELECT text FROM report WHERE id = 1")
        return str(rows[0][0]) if rows else None

    def data_version(self) -> int:
        """Changes when another process has changed the journal (PRAGMA data_version)."""
        return int(self._row("PRAGMA data_version")[0])

    def _rows(self, sql: str, values: Sequence[object] | Mapping[str, object] = ()) -> list[sqlite3.Row]:
        with translated(self.path):
            return self._connection.execute(sql, values).fetchall()

    def _row(self, sql: str, values: Sequence[object] = ()) -> sqlite3.Row:
        row: sqlite3.Row = self._rows(sql, values)[0]
        return row
