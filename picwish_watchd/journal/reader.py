"""Read jobs, their histories and the ledger: for commands, and for the steps that look up what is known of a file."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from picwish_watchd.errors import JournalError
from picwish_watchd.fs.mounts import Mount
from picwish_watchd.job import Job, JobEvent, Stamp, State
from picwish_watchd.journal.queries import SELECT_CHARGE, SELECT_JOB
from picwish_watchd.journal.rows import (
    SpendingRecord,
    decode_path,
    escape_surrogates,
    event_from_row,
    job_from_row,
    mount_from_row,
    spending_from_row,
    stamp_from_row,
)
from picwish_watchd.journal.sqlite_errors import RESTORE_HINT, sqlite_errors_as_journal_errors
from picwish_watchd.journal.status_reader import StatusReader

#: Rows that are read at once where there may be a million.
PAGE_SIZE = 500


class JournalReader(StatusReader):
    """Read access to jobs. `open` makes a reader with a connection of its own; `Journal` reads through its own."""

    def get(self, job_id: int) -> Job | None:
        """Return one job, or None if there is none with this id."""
        rows = self.fetch_rows(SELECT_JOB + "WHERE id = ?", (job_id,)) if 0 < job_id < 2**63 else []
        return job_from_row(rows[0]) if rows else None

    def jobs(
        self,
        *,
        states: Sequence[State] = (),
        rule: str | None = None,
        after: int = 0,
        limit: int = -1,
        oldest_first: bool = False,
    ) -> list[Job]:
        """Return jobs by state and rule, of all states and rules by default, without ids up to ``after``."""
        where = ["id > ?"]
        values: list[object] = [after]
        if states:
            where.append(f"state IN ({','.join('?' * len(states))})")
            values += states
        if rule is not None:
            where.append("rule = ?")
            values.append(rule)
        order = "ASC" if oldest_first else "DESC"
        sql = f"{SELECT_JOB} WHERE {' AND '.join(where)} ORDER BY id {order} LIMIT ?"
        return [job_from_row(row) for row in self.fetch_rows(sql, (*values, limit))]

    def history(self, job_id: int) -> list[JobEvent]:
        """Return the events of a job, oldest first."""
        rows = self.fetch_rows("SELECT at, state, message FROM event WHERE job = ? ORDER BY id", (job_id,))
        return [event_from_row(row) for row in rows]

    def find_jobs_by_content(self, sha256: str, rule: str, task_type: int, *, settled: bool = False) -> list[Job]:
        """Return the jobs of one content, rule and task type that a copy may follow, newest first.

        Jobs that have a result and are `done` come before the others. ``settled``: only `done` and `held` ones.
        """
        # By its content: SQLite shall not go through all jobs in these states instead.
        only = "AND +state IN ('done', 'held')" if settled else ""
        rows = self.fetch_rows(
            f"{SELECT_JOB} WHERE sha256 = ? AND rule = ? AND type = ? AND state NOT IN ('rejected', 'failed') {only}"
            " AND (state <> 'done' OR result IS NOT NULL) ORDER BY state <> 'done', id DESC",
            (sha256, rule, task_type),
        )
        return [job_from_row(row) for row in rows]

    def flood_held_contents(self, rule: str, contents: Sequence[str]) -> set[str]:
        """Return those of ``contents`` (SHA-256) of which an image of ``rule`` waits for `approve`."""
        marks = ",".join("?" * len(contents))
        # INDEXED BY, as SQLite would rather go through all queued jobs.
        where = f"INDEXED BY job_content WHERE state = 'queued' AND flood = 1 AND rule = ? AND sha256 IN ({marks})"
        return {row[0] for row in self.fetch_rows(f"SELECT sha256 FROM job {where}", (rule, *contents))}

    def held_duplicates(self, job: Job) -> list[Job]:
        """Return the jobs that are held only because ``job``, of the same content and rule, was held."""
        rows = self.fetch_rows(
            f"{SELECT_JOB} WHERE sha256 = ? AND rule = ? AND state = 'held' AND error_code = 'duplicate_of_held'"
            " AND id <> ? ORDER BY id",
            (job.sha256, job.rule, job.id),
        )
        return [job_from_row(row) for row in rows]

    def result_outputs(self, contents: Sequence[str]) -> dict[str, Path]:
        """Return, for those of ``contents`` (SHA-256) that are a result of ours, where that result was last."""
        sql = (
            "SELECT result_sha256, output FROM job WHERE result IS NOT NULL AND output IS NOT NULL"
            f" AND result_sha256 IN ({','.join('?' * len(contents))}) ORDER BY id"
        )
        return {row[0]: decode_path(row[1]) for row in self.fetch_rows(sql, contents)}

    def find_jobs_by_result(self, sha256: str) -> list[Job]:
        """Return the jobs whose result has this SHA-256."""
        return [job_from_row(row) for row in self.fetch_rows(f"{SELECT_JOB} WHERE result_sha256 = ?", (sha256,))]

    def find_latest_job(self, source: Path) -> Job | None:
        """Return the newest job of a file."""
        return next(iter(self.jobs_of_source(source, limit=1)), None)

    def find_latest_jobs(self, sources: Sequence[Path]) -> dict[Path, Job]:
        """Return the newest job of each of these files; files without a job are left out."""
        marks = ",".join("?" * len(sources))
        sql = f"{SELECT_JOB} WHERE id IN (SELECT max(id) FROM job WHERE source IN ({marks}) GROUP BY source)"
        return {
            job.source: job
            for job in map(job_from_row, self.fetch_rows(sql, [os.fsencode(source) for source in sources]))
        }

    def jobs_of_source(self, source: Path, *, limit: int = -1) -> list[Job]:
        """Return the jobs of a file, newest first."""
        sql = f"{SELECT_JOB} WHERE source = ? ORDER BY id DESC LIMIT ?"
        return [job_from_row(row) for row in self.fetch_rows(sql, (os.fsencode(source), limit))]

    def known_files(self, rule: str) -> Iterator[tuple[str, Stamp]]:
        """Yield (path below the inbox, stamp) of each file that has a job and may still be in the inbox."""
        with sqlite_errors_as_journal_errors(self.path):
            cursor = self._connection.execute(
                "SELECT relative, inode, size, mtime_ns FROM job"
                " WHERE rule = ? AND original IN ('present', 'waiting')"
                " AND coalesce(error_code, '') NOT IN ('source_missing', 'source_changed') ORDER BY id",
                (rule,),
            )
            for row in cursor:
                yield os.fsdecode(row["relative"]), stamp_from_row(row)

    def find_output_owner(self, output: Path) -> Job | None:
        """Return the newest job whose result is at ``output``, or is about to be."""
        rows = self.fetch_rows(f"{SELECT_JOB} WHERE output = ? ORDER BY id DESC LIMIT 1", (os.fsencode(output),))
        return job_from_row(rows[0]) if rows else None

    def is_output_planned(self, output: Path, *, excluding: int) -> bool:
        """Return whether an unfinished job, other than job ``excluding``, is to have its result at ``output``."""
        sql = "SELECT 1 FROM job WHERE output = ? AND id <> ? AND state <> 'done' LIMIT 1"
        return bool(self.fetch_rows(sql, (os.fsencode(output), excluding)))

    def find_job_by_message(self, message: str) -> Job | None:
        """Return the newest job with an event of this message."""
        rows = self.fetch_rows(
            "SELECT job FROM event WHERE message = ? ORDER BY id DESC LIMIT 1", (escape_surrogates(message),)
        )
        return self.get(int(rows[0][0])) if rows else None

    def find_task_owner(self, task_id: str) -> Job | None:
        """Return the newest job of this task at PicWish."""
        rows = self.fetch_rows(f"{SELECT_JOB} WHERE task_id = ? ORDER BY id DESC LIMIT 1", (task_id,))
        return job_from_row(rows[0]) if rows else None

    def iter_spending(self) -> Iterator[SpendingRecord]:
        """Yield every submission up to now that PicWish accepted or may have accepted, oldest first.

        Rows are read in pages: a slow caller needs no memory, and keeps no transaction open during which the WAL grows.
        """
        done, end = 0, int(self.fetch_row("SELECT coalesce(max(id), 0) FROM charge")[0])
        page = f"{SELECT_CHARGE} WHERE charge.id > ? AND charge.id <= ? ORDER BY charge.id LIMIT {PAGE_SIZE}"
        while rows := self.fetch_rows(page, (done, end)):
            yield from (spending_from_row(row) for row in rows if row["state"] != "released")
            done = rows[-1]["id"]

    def iter_jobs(self, rule: str | None = None) -> Iterator[Job]:
        """Yield every job up to now, of ``rule`` or of all, oldest first; rows are read in pages."""
        done, end = 0, int(self.fetch_row("SELECT coalesce(max(id), 0) FROM job")[0])
        while jobs := self.jobs(rule=rule, after=done, limit=PAGE_SIZE, oldest_first=True):
            for job in jobs:
                if job.id > end:
                    return
                yield job
            done = jobs[-1].id

    def check_integrity(self) -> None:
        """Raise `JournalError` if SQLite finds damage (PRAGMA quick_check)."""
        finding = self.fetch_row("PRAGMA quick_check(1)")[0]
        if finding != "ok":
            raise JournalError(f"the journal is damaged: {self.path} ({finding})", hint=RESTORE_HINT)

    def jobs_changed_since(self, event: int, states: Sequence[State]) -> list[Job]:
        """Return jobs in one of ``states`` that changed their state after event ``event``, oldest first."""
        marks = ",".join("?" * len(states))
        before = "SELECT state FROM event WHERE job = now.job AND id < now.id ORDER BY id DESC LIMIT 1"
        moved = f"SELECT job FROM event AS now WHERE id > ? AND state <> coalesce(({before}), '')"
        sql = f"{SELECT_JOB} WHERE state IN ({marks}) AND id IN ({moved}) ORDER BY id"
        return [job_from_row(row) for row in self.fetch_rows(sql, (*states, event))]

    def is_known_folder(self, folder: Path) -> bool:
        """Return whether the folder existed before and was written to."""
        return bool(self.fetch_rows("SELECT 1 FROM folder WHERE path = ?", (os.fsencode(folder),)))

    def folder_mount(self, folder: Path) -> Mount | None:
        """Return the mount that the folder was last accepted on, or None if that is not known yet."""
        rows = self.fetch_rows("SELECT mount_point, mount_kind FROM folder WHERE path = ?", (os.fsencode(folder),))
        return mount_from_row(rows[0]) if rows else None
