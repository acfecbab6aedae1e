"""Writing the journal: every change of a job is one guarded statement, here, with its event beside it."""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Self, Unpack

from picwish_watchd.clock import Clock
from picwish_watchd.errors import JournalError
from picwish_watchd.fs.mounts import Mount
from picwish_watchd.job import ALLOWED_TRANSITIONS, Job, NewJob, Stamp, State
from picwish_watchd.journal.bulk_insert import insert_jobs, needs_durable_commit
from picwish_watchd.journal.connection import ensure_journal_file, ensure_journal_folder, open_write_connection
from picwish_watchd.journal.integrity import (
    check_local_filesystem,
    check_regular_file,
    last_event_id,
)
from picwish_watchd.journal.locks import WriteLock
from picwish_watchd.journal.prune import PruneResult, delete_prunable, find_prunable
from picwish_watchd.journal.queries import JOB_COLUMNS
from picwish_watchd.journal.reader import PAUSE_MAX, JournalReader
from picwish_watchd.journal.rows import JobChanges, changed_columns, escape_surrogates, job_from_row, stamp_columns
from picwish_watchd.journal.sqlite_errors import sqlite_errors_as_journal_errors

# jobs that tell why their whole rule waits
_MAX_NOTED_JOBS = 100


class ChargeState(StrEnum):
    """What became of the credits of one submission."""

    #: submitted, not yet known
    RESERVED = "reserved"
    #: PicWish succeeded
    SPENT = "spent"
    #: nobody can know
    DOUBTFUL = "doubtful"
    #: refused or failed: not charged ("for each successful call")
    RELEASED = "released"


class BudgetReachedError(Exception):
    """Nothing more may be spent until the day or the month turns."""


class StaleJobError(RuntimeError):
    """A job is no longer in the state that the caller saw: a bug, or two writers."""


class Journal(JournalReader):
    """The daemon's journal: queue, history and ledger in one SQLite file.

    Not thread-safe: only the event loop's thread may use it. Its commits are synchronous on purpose: nothing can come
    between a known outcome and its commit. Writers of other processes are kept apart by `WriteLock`.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, lock: WriteLock, clock: Clock) -> None:
        super().__init__(connection, path)
        self._lock = lock
        self._clock = clock
        self._inode = os.stat(path).st_ino
        #: transactions that were committed
        self.commits = 0

    @classmethod
    def open_for_writing(cls, path: Path, clock: Clock) -> Self:
        """Opens the journal, makes a new one where there is none, and brings an older one up to date.

        Raises `JournalError` if it is damaged, newer than this program, not ours, or on a network file system.
        """
        check_regular_file(path)
        check_local_filesystem(path)
        ensure_journal_folder(path)
        lock = WriteLock(path)
        try:
            with sqlite_errors_as_journal_errors(path), lock.hold():
                ensure_journal_file(path, lock)
                connection = open_write_connection(path)
            return cls(connection, path, lock, clock)
        except BaseException:
            lock.close()
            raise

    @classmethod
    def open_existing(cls, path: Path, clock: Clock) -> Self:
        """Opens an existing journal for a short change, beside a running daemon or without one.

        Raises `JournalError` as `open_for_writing` does, and where there is none.
        """
        JournalReader.open(path).close()
        lock = WriteLock(path)
        try:
            with sqlite_errors_as_journal_errors(path), lock.hold():
                connection = open_write_connection(path, verify=False)
            return cls(connection, path, lock, clock)
        except BaseException:
            lock.close()
            raise

    def close(self) -> None:
        """Closes the journal; the last one out folds the WAL into the file."""
        with self._lock.hold():
            super().close()
        self._lock.close()

    def add_jobs(self, found: Sequence[NewJob]) -> list[int]:
        """Adds jobs, all in one transaction; answers their ids in the same order.

        A power cut may take back the last ones that only wait in the queue: the next walk finds them again.
        """
        with self._transaction(synced=needs_durable_commit(found)) as cursor:
            return insert_jobs(cursor, found, self._clock.now())

    def transition(
        self,
        job: Job,
        to: State,
        message: str,
        *,
        reserve: int | None = None,
        caps: Sequence[tuple[float, int]] = (),
        charge: ChargeState | None = None,
        **changes: Unpack[JobChanges],
    ) -> Job:
        """Moves a job on, with its event and its credits in the same transaction, and answers its new value.

        ``reserve`` opens a row of so many credits in the ledger, unless that would exceed one of ``caps``, each (from
        this moment on, credits at most): then `BudgetReachedError`, and nothing was changed. ``charge`` says what
        became of the last row. Raises ValueError for a move that is not legal and `StaleJobError` if the job is
        elsewhere by now.
        """
        if to not in ALLOWED_TRANSITIONS[job.state]:
            raise ValueError(f"job {job.id}: {job.state} -> {to} is not a legal move")
        at = self._clock.now()
        with self._transaction() as cursor:
            self._insert_event(cursor, job.id, to, message)
            if reserve is not None:
                if any(self.credits_since(moment) + reserve > most for moment, most in caps):
                    raise BudgetReachedError
                cursor.execute(
                    "INSERT INTO charge (job, rule, at, credits, state) VALUES (?, ?, ?, ?, 'reserved')",
                    (job.id, job.rule, at, reserve),
                )
                self._credit_sums.add_submission(at, reserve)
            if charge is not None:
                self._update_charge(cursor, job, charge)
            moved = self._update_row(cursor, job, {"state": to, **changed_columns(changes)})
        self._pauses.pop((job.state, job.rule), None)
        return moved

    def _update_charge(self, cursor: sqlite3.Cursor, job: Job, charge: ChargeState) -> None:
        before = cursor.execute(
            "SELECT id, state FROM charge WHERE job = ? ORDER BY id DESC LIMIT 1", (job.id,)
        ).fetchone()
        if before is not None:
            # no other change is one of a sum
            if ChargeState.RELEASED in (charge, before["state"]):
                self._credit_sums.invalidate()
            cursor.execute("UPDATE charge SET state = ? WHERE id = ?", (charge, before["id"]))

    def update(self, job: Job, message: str | None = None, **changes: Unpack[JobChanges]) -> Job:
        """Changes facts of a job that stays in its state; ``message`` makes it part of the history."""
        with self._transaction() as cursor:
            if message is not None:
                self._insert_event(cursor, job.id, job.state, message)
            return self._update_row(cursor, job, changed_columns(changes))

    def clear_pauses(self) -> None:
        """A new start tries everything at once, queued jobs and originals that are still to be moved."""
        sql = "UPDATE job SET not_before = NULL WHERE not_before IS NOT NULL"
        with self._transaction() as cursor:
            cursor.execute(f"{sql} AND (state = 'queued' OR original = 'waiting')")

    def postpone_jobs(self, rule: str, state: State, note: str, until: float) -> None:
        """All jobs of ``rule`` in ``state`` wait for the same thing; none is tried before ``until`` (Unix seconds).

        That goes until a job of the rule leaves the state, or `end_pauses`. Only the first of them tell it, and have it
        as a pause of their own (unless that lasts longer, and was not set by a clock that was ahead): to write it down
        for each of 50,000 takes too long.
        """
        with self._transaction() as cursor:
            cursor.execute(
                "UPDATE job SET note = :note, not_before = CASE WHEN not_before BETWEEN :until AND :now + :longest"
                " THEN not_before ELSE :until END WHERE id IN (SELECT id FROM job WHERE state = :state AND rule = :rule"
                " AND flood = 0 ORDER BY id LIMIT :told)",
                {
                    "note": escape_surrogates(note),
                    "until": until,
                    "now": self._clock.now(),
                    "longest": PAUSE_MAX,
                    "state": state,
                    "rule": rule,
                    "told": _MAX_NOTED_JOBS,
                },
            )
        self._pauses[state, rule] = until

    def end_pauses(self) -> None:
        """What `put_off` has put off may be tried at once, but for the jobs that tell of it."""
        self._pauses = dict.fromkeys(self._pauses, 0.0)

    def update_stamp(self, job: Job, stamp: Stamp) -> None:
        """The file of a job was touched, and still holds the same."""
        with self._transaction() as cursor:
            cursor.execute(
                "UPDATE job SET inode = :inode, size = :size, mtime_ns = :mtime_ns WHERE id = :id",
                {**stamp_columns(stamp), "id": job.id},
            )

    def save_rule_settings(self, name: str, settings: str) -> None:
        """Keeps the settings of a rule, for the day when it has left the configuration."""
        if self.rule_settings(name) != settings:
            with self._transaction() as cursor:
                cursor.execute("INSERT OR REPLACE INTO rule (name, settings) VALUES (?, ?)", (name, settings))

    def approve(self, rule: str, folders: Sequence[Path]) -> int:
        """Lets a held flood go, and forgets where ``folders`` were; answers how many images go on."""
        with self._transaction() as cursor:
            for folder in folders:
                cursor.execute("DELETE FROM folder WHERE path = ?", (os.fsencode(folder),))
            cursor.execute("UPDATE job SET flood = 0 WHERE rule = ? AND flood = 1", (rule,))
            return cursor.rowcount

    def save_folder(self, folder: Path, mount: Mount | None = None) -> None:
        """The folder was there and could be used, on this mount; a mount that is known already is kept."""
        point, kind = (None, None) if mount is None else (os.fsencode(mount.point), mount.kind)
        with self._transaction() as cursor:
            cursor.execute(
                "INSERT INTO folder (path, mount_point, mount_kind) VALUES (?, ?, ?) ON CONFLICT (path) DO UPDATE"
                " SET mount_point = excluded.mount_point, mount_kind = excluded.mount_kind WHERE mount_point IS NULL",
                (os.fsencode(folder), point, kind),
            )

    def prune_batch(self, before: float, after: int = 0) -> PruneResult:
        """Forgets, of the next few lines of history after line ``after``, those of jobs that ended ``before`` (Unix
        seconds). A matter of milliseconds; a crash between two slices is harmless. See `picwish_watchd.journal.prune`.
        """
        with sqlite_errors_as_journal_errors(self.path):
            found = find_prunable(self._connection, before, after)
        if found.event_ids:
            with self._transaction() as cursor:
                # `retry` may have come between
                found = find_prunable(self._connection, before, after)
                if found.event_ids:
                    delete_prunable(cursor, found)
        return PruneResult(found.last_event_id, len(found.event_ids), found.is_last)

    def publish_report(self, text: str, *, synced: bool = True) -> None:
        """What the daemon says of itself, for `status`; not ``synced``: it may be lost in a power cut."""
        with self._transaction(synced=synced) as cursor:
            cursor.execute("INSERT OR REPLACE INTO report (id, text) VALUES (1, ?)", (text,))

    def _update_row(self, cursor: sqlite3.Cursor, job: Job, columns: dict[str, object]) -> Job:
        """The guarded statement; to be the last of its transaction, as it answers the job's new value."""
        # a line of history may be all
        names = ", ".join(f"{name} = :{name}" for name in columns) or "id = id"
        values = {**columns, "_id": job.id, "_state": job.state}
        sql = f"UPDATE job SET {names} WHERE id = :_id AND state = :_state RETURNING {JOB_COLUMNS}"
        row = cursor.execute(sql, values).fetchone()
        if row is None:
            raise StaleJobError(f"job {job.id} is no longer {job.state}")
        return job_from_row(row)

    def _insert_event(self, cursor: sqlite3.Cursor, job_id: int, state: State, message: str) -> None:
        cursor.execute(
            "INSERT INTO event (job, at, state, message) VALUES (?, ?, ?, ?)",
            (job_id, self._clock.now(), state, escape_surrogates(message)),
        )

    @contextmanager
    def _transaction(self, *, synced: bool = True) -> Iterator[sqlite3.Cursor]:
        self._check_not_replaced()
        with sqlite_errors_as_journal_errors(self.path), self._lock.hold():
            cursor = self._connection.cursor()
            try:
                # each one says it for itself: none can leave a payment to be committed as it was
                cursor.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
                cursor.execute("BEGIN IMMEDIATE")
                yield cursor
                last = last_event_id(self._connection)
                cursor.execute("COMMIT")
                self.commits += 1
                # the witness must not outlive what it has seen
                if synced:
                    self._lock.record_durable_event(last)
            except BaseException:
                # what was added, and may be undone or not
                self._credit_sums.invalidate()
                if self._connection.in_transaction:
                    cursor.execute("ROLLBACK")
                raise

    def _check_not_replaced(self) -> None:
        try:
            inode = os.stat(self.path).st_ino
        except OSError:
            inode = None
        if inode != self._inode:
            raise JournalError(
                f"the journal {self.path} was moved, replaced or deleted while picwish-watchd was running",
                hint="put it back where it was, with its -wal, and start again; nothing more was submitted",
            )
