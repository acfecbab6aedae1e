"""Write the journal: each change of a job is one guarded UPDATE, in one transaction with its event and its credits."""

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
from picwish_watchd.journal.queue_reader import PAUSE_MAX, QueueReader, original_group
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.journal.rows import JobChanges, changed_columns, escape_surrogates, job_from_row, stamp_columns
from picwish_watchd.journal.sqlite_errors import sqlite_errors_as_journal_errors

#: At most this many jobs of a postponed group get a note. Writing 50,000 would take too long.
MAX_NOTED_JOBS = 100

_POSTPONE_SQL = """UPDATE job SET note = :note,
  not_before = CASE WHEN not_before BETWEEN :until AND :now + :longest THEN not_before ELSE :until END
  WHERE id IN (SELECT id FROM job WHERE state = :state AND rule = :rule AND flood = 0 ORDER BY id LIMIT :jobs)"""


class ChargeState(StrEnum):
    """What became of the credits of one submission."""

    #: Submitted; the outcome is not known yet.
    RESERVED = "reserved"
    #: PicWish succeeded, and charged.
    SPENT = "spent"
    #: It cannot be known whether PicWish charged.
    DOUBTFUL = "doubtful"
    #: Refused or failed, so not charged (API document: "for each successful call").
    RELEASED = "released"


class BudgetReachedError(Exception):
    """The credits would exceed a limit of the budget."""


class StaleJobError(RuntimeError):
    """A job is no longer in the state that the caller read: a bug, or two writers."""


class Journal(QueueReader):
    """The daemon's journal: queue, history and ledger in one SQLite file.

    Not thread-safe: only the event loop's thread may use it. Its commits are synchronous on purpose, so that nothing
    happens between a known outcome and its commit. `WriteLock` keeps writers of other processes apart.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, lock: WriteLock, clock: Clock) -> None:
        super().__init__(connection, path)
        self._lock = lock
        self._clock = clock
        self._inode = os.stat(path).st_ino
        #: Number of transactions that were committed.
        self.commits = 0

    @classmethod
    def open_for_writing(cls, path: Path, clock: Clock) -> Self:
        """Open the journal; create it where there is none, and migrate it if it is of an earlier version.

        Raises `JournalError` if it is damaged, newer than this program, not ours, or on a network file system.
        """
        check_regular_file(path)
        check_local_filesystem(path)
        ensure_journal_folder(path)
        return cls._open_locked(path, clock, is_daemon=True)

    @classmethod
    def open_existing(cls, path: Path, clock: Clock) -> Self:
        """Open an existing journal for a short change, beside a running daemon or without one.

        Raises `JournalError` as `open_for_writing` does, and if there is no journal.
        """
        JournalReader.open(path).close()
        return cls._open_locked(path, clock, is_daemon=False)

    @classmethod
    def _open_locked(cls, path: Path, clock: Clock, *, is_daemon: bool) -> Self:
        lock = WriteLock(path)
        try:
            with sqlite_errors_as_journal_errors(path), lock.hold():
                if is_daemon:
                    ensure_journal_file(path, lock)
                connection = open_write_connection(path, verify=is_daemon)
            return cls(connection, path, lock, clock)
        except BaseException:
            lock.close()
            raise

    def close(self) -> None:
        """Close the journal. The last process to do so checkpoints the WAL into the file."""
        with self._lock.hold():
            super().close()
        self._lock.close()

    def add_jobs(self, new_jobs: Sequence[NewJob]) -> list[int]:
        """Add jobs in one transaction, and return their ids in the same order.

        A power cut may undo the last ones that only wait in the queue; the next scan finds these files again.
        """
        with self._transaction(synced=needs_durable_commit(new_jobs)) as cursor:
            return insert_jobs(cursor, new_jobs, self._clock.now())

    def transition(
        self,
        job: Job,
        to: State,
        message: str,
        *,
        reserve: int | None = None,
        limits: Sequence[tuple[float, int]] = (),
        charge: ChargeState | None = None,
        **changes: Unpack[JobChanges],
    ) -> Job:
        """Change the state of a job, with its event and its credits in the same transaction, and return the new job.

        ``reserve`` adds a row of credits to the ledger. ``limits`` are pairs of a start (Unix seconds) and the most
        credits since then: if one would be exceeded, nothing changes and `BudgetReachedError` is raised. ``charge``
        sets the state of the job's last row in the ledger. Raises ValueError for a transition that is not allowed, and
        `StaleJobError` if the job is in another state by now.
        """
        if to not in ALLOWED_TRANSITIONS[job.state]:
            raise ValueError(f"job {job.id}: {job.state} -> {to} is not an allowed transition")
        at = self._clock.now()
        with self._transaction() as cursor:
            insert_event(cursor, job.id, at, to, message)
            if reserve is not None:
                self._reserve_credits(cursor, job, at, reserve, limits)
            if charge is not None:
                self._update_charge(cursor, job, charge)
            moved = _update_row(cursor, job, {"state": to, **changed_columns(changes)})
        self._postponed_until.pop((job.state, job.rule), None)
        return moved

    def _reserve_credits(
        self, cursor: sqlite3.Cursor, job: Job, at: float, price: int, limits: Sequence[tuple[float, int]]
    ) -> None:
        """Enforce the budget in the transaction of the intent: reserve the price, or raise `BudgetReachedError`."""
        if any(self.credits_since(start) + price > most for start, most in limits):
            raise BudgetReachedError
        cursor.execute(
            "INSERT INTO charge (job, rule, at, credits, state) VALUES (?, ?, ?, ?, 'reserved')",
            (job.id, job.rule, at, price),
        )
        self._credit_sums.add_submission(at, price)

    def update(self, job: Job, message: str | None = None, **changes: Unpack[JobChanges]) -> Job:
        """Change facts of a job that keeps its state, and return the new job; ``message`` adds an event."""
        with self._transaction() as cursor:
            if message is not None:
                insert_event(cursor, job.id, self._clock.now(), job.state, message)
            return _update_row(cursor, job, changed_columns(changes))

    def clear_pauses(self) -> None:
        """Remove the stored pauses of queued jobs and waiting originals, so that a new start tries them at once."""
        sql = "UPDATE job SET not_before = NULL WHERE not_before IS NOT NULL"
        with self._transaction() as cursor:
            cursor.execute(f"{sql} AND (state = 'queued' OR original = 'waiting')")

    def postpone_jobs(self, rule: str, state: State, note: str, until: float) -> None:
        """Try no job of ``rule`` in ``state`` before ``until`` (Unix seconds), as all wait for the same thing.

        That ends when a job of the rule leaves the state, or with `end_pauses`. The first `MAX_NOTED_JOBS` of them get
        ``note``. They also get the pause, unless theirs is longer and plausible: a clock may have been ahead.
        """
        with self._transaction() as cursor:
            cursor.execute(
                _POSTPONE_SQL,
                {
                    "note": escape_surrogates(note),
                    "until": until,
                    "now": self._clock.now(),
                    "longest": PAUSE_MAX,
                    "state": state,
                    "rule": rule,
                    "jobs": MAX_NOTED_JOBS,
                },
            )
        self._postponed_until[state, rule] = until

    def postpone_originals(self, job: Job, until: float) -> None:
        """Until ``until`` (Unix seconds), try no original of the job's rule that goes to the same folder.

        The folder cannot be used. Originals of finished jobs go to one folder, those of failed and rejected jobs to
        another. `end_pauses` ends it.
        """
        self._postponed_until[original_group(job.state), job.rule] = until

    def end_pauses(self) -> None:
        """Let postponed groups be tried at once, except for the jobs that have a stored pause of their own."""
        self._postponed_until = dict.fromkeys(self._postponed_until, 0.0)

    def update_stamp(self, job: Job, stamp: Stamp) -> None:
        """Store the new stamp of a file that was touched and still has the same content."""
        with self._transaction() as cursor:
            cursor.execute(
                "UPDATE job SET inode = :inode, size = :size, mtime_ns = :mtime_ns WHERE id = :id",
                {**stamp_columns(stamp), "id": job.id},
            )

    def save_rule_settings(self, name: str, settings: str) -> None:
        """Store the settings of a rule, for its tasks that outlive it in the configuration."""
        if self.rule_settings(name) != settings:
            with self._transaction() as cursor:
                cursor.execute("INSERT OR REPLACE INTO rule (name, settings) VALUES (?, ?)", (name, settings))

    def approve(self, rule: str, folders: Sequence[Path]) -> int:
        """Release the images of ``rule`` that `budget.burst` holds, and forget the mounts of ``folders``.

        Returns the number of images released.
        """
        with self._transaction() as cursor:
            for folder in folders:
                cursor.execute("DELETE FROM folder WHERE path = ?", (os.fsencode(folder),))
            cursor.execute("UPDATE job SET flood = 0 WHERE rule = ? AND flood = 1", (rule,))
            return cursor.rowcount

    def save_folder(self, folder: Path, mount: Mount | None = None) -> None:
        """Store that the folder exists and could be used, on ``mount``; a mount that is stored already is kept."""
        point, kind = (None, None) if mount is None else (os.fsencode(mount.point), mount.kind)
        with self._transaction() as cursor:
            cursor.execute(
                "INSERT INTO folder (path, mount_point, mount_kind) VALUES (?, ?, ?) ON CONFLICT (path) DO UPDATE"
                " SET mount_point = excluded.mount_point, mount_kind = excluded.mount_kind WHERE mount_point IS NULL",
                (os.fsencode(folder), point, kind),
            )

    def prune_batch(self, before: float, after: int = 0) -> PruneResult:
        """Look at the next few events after ``after``, and delete those whose job ended before ``before``.

        ``before`` is in Unix seconds. A batch takes milliseconds, and a crash between two of them is harmless. See
        `picwish_watchd.journal.prune` for what is kept.
        """
        with sqlite_errors_as_journal_errors(self.path):
            candidates = find_prunable(self._connection, before, after)
        if candidates.event_ids:
            with self._transaction() as cursor:
                # Looked up again under the lock, as `retry` may have changed a job since.
                candidates = find_prunable(self._connection, before, after)
                if candidates.event_ids:
                    delete_prunable(cursor, candidates)
        return PruneResult(candidates.last_event_id, len(candidates.event_ids), candidates.is_last)

    def publish_report(self, text: str, *, synced: bool = True) -> None:
        """Store the daemon's report for `status`; a power cut may undo it if not ``synced``."""
        with self._transaction(synced=synced) as cursor:
            cursor.execute("INSERT OR REPLACE INTO report (id, text) VALUES (1, ?)", (text,))

    def _update_charge(self, cursor: sqlite3.Cursor, job: Job, charge: ChargeState) -> None:
        before = cursor.execute(
            "SELECT id, state FROM charge WHERE job = ? ORDER BY id DESC LIMIT 1", (job.id,)
        ).fetchone()
        if before is not None:
            # Only a change to or from RELEASED changes a sum.
            if ChargeState.RELEASED in (charge, before["state"]):
                self._credit_sums.invalidate()
            cursor.execute("UPDATE charge SET state = ? WHERE id = ?", (charge, before["id"]))

    @contextmanager
    def _transaction(self, *, synced: bool = True) -> Iterator[sqlite3.Cursor]:
        self._check_not_replaced()
        with sqlite_errors_as_journal_errors(self.path), self._lock.hold():
            cursor = self._connection.cursor()
            try:
                # Set for each transaction, so that none before can leave a payment to be committed without a sync.
                cursor.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
                cursor.execute("BEGIN IMMEDIATE")
                yield cursor
                last = last_event_id(self._connection)
                cursor.execute("COMMIT")
                self.commits += 1
                # An event that a power cut may undo must not be recorded as durable.
                if synced:
                    self._lock.record_durable_event(last)
            except BaseException:
                # It is not known whether the transaction's additions were committed or undone.
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


def insert_event(cursor: sqlite3.Cursor, job_id: int, at: float, state: State, message: str) -> None:
    """Add an event to the history of a job, within the caller's transaction."""
    cursor.execute(
        "INSERT INTO event (job, at, state, message) VALUES (?, ?, ?, ?)",
        (job_id, at, state, escape_surrogates(message)),
    )


def _update_row(cursor: sqlite3.Cursor, job: Job, columns: dict[str, object]) -> Job:
    """Run the guarded UPDATE; it has to be the last statement of its transaction, as it returns the new job."""
    # Without columns an event is all that the transaction adds.
    names = ", ".join(f"{name} = :{name}" for name in columns) or "id = id"
    values = {**columns, "_id": job.id, "_state": job.state}
    sql = f"UPDATE job SET {names} WHERE id = :_id AND state = :_state RETURNING {JOB_COLUMNS}"
    row = cursor.execute(sql, values).fetchone()
    if row is None:
        raise StaleJobError(f"job {job.id} is no longer {job.state}")
    return job_from_row(row)
