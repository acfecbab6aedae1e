"""Reading the journal: what commands show and what the steps pull from."""

import math
import os
import sqlite3
from collections.abc import Container, Iterator, Sequence
from operator import attrgetter
from pathlib import Path

from picwish_watchd.errors import JournalError
from picwish_watchd.fs.mounts import Mount
from picwish_watchd.job import Job, JobEvent, Stamp, State
from picwish_watchd.journal.queries import (
    NO_DUPLICATE_AHEAD,
    RULES_WITH_STATE,
    RULES_WITH_WAITING_ORIGINALS,
    SELECT_CHARGE,
    SELECT_JOB,
)
from picwish_watchd.journal.rows import (
    RunningTask,
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

# rows that are read at once where there may be a million
_PAGE_SIZE = 500
#: seconds; no pause lasts longer
PAUSE_MAX = 300.0
#: The pause is over. None lasts over 300 s: one that ends in more than 400 s was set by a clock that was ahead.
_PAUSE_IS_OVER = "abs(coalesce(not_before, 0) - ? - 200) >= 200"


class JournalReader(StatusReader):
    """Read access. `open` gives a reader of its own; `Journal` reads through its writing connection."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        super().__init__(connection, path)
        # what is put off as a whole, and until when (Unix seconds)
        self._pauses: dict[tuple[State, str], float] = {}

    def get(self, job_id: int) -> Job | None:
        """One job."""
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
        """Jobs by state and rule; ``after`` leaves out ids up to that one."""
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
        """All that happened to a job, oldest first."""
        rows = self.fetch_rows("SELECT at, state, message FROM event WHERE job = ? ORDER BY id", (job_id,))
        return [event_from_row(row) for row in rows]

    def next_ready_job(
        self, rule: str, now: float, leaving_out: Sequence[int] = (), *, state: State = State.QUEUED
    ) -> Job | None:
        """The oldest job of ``rule`` in ``state`` whose pause is over, except those that are on their way already.

        A queued job waits while another one of the same content is under way, or an earlier one is queued.
        """
        if self._is_postponed(state, rule, now):
            return None
        skip = ",".join(map(str, leaving_out))
        waits = NO_DUPLICATE_AHEAD.format(skip) if state is State.QUEUED else ""
        rows = self.fetch_rows(
            f"{SELECT_JOB} WHERE state = ? AND rule = ? AND {_PAUSE_IS_OVER}"
            f" AND id NOT IN ({skip}) {waits} ORDER BY id LIMIT 1",
            (state, rule, now),
        )
        return job_from_row(rows[0]) if rows else None

    def find_duplicates(self, job: Job, model: int) -> list[Job]:
        """Other jobs of the same content, rule and ``type``: with a result, newest first; then earlier held ones."""
        rows = self.fetch_rows(
            f"{SELECT_JOB} WHERE sha256 = ? AND rule = ? AND type = ? AND"
            " (state = 'done' AND id <> ? AND result IS NOT NULL OR state = 'held' AND id < ?)"
            " ORDER BY state, id DESC",
            (job.sha256, job.rule, model, job.id, job.id),
        )
        return [job_from_row(row) for row in rows]

    def find_jobs_by_content(self, sha256: str, rule: str, model: int) -> list[Job]:
        """Jobs of one content, rule and ``type`` that a copy would follow: with a result, newest first; then others."""
        rows = self.fetch_rows(
            f"{SELECT_JOB} WHERE sha256 = ? AND rule = ? AND type = ? AND state NOT IN ('rejected', 'failed')"
            " AND (state <> 'done' OR result IS NOT NULL) ORDER BY state <> 'done', id DESC",
            (sha256, rule, model),
        )
        return [job_from_row(row) for row in rows]

    def flood_held_contents(self, rule: str, contents: Sequence[str]) -> set[str]:
        """Those of ``contents`` of which an image of ``rule`` waits for `approve`."""
        marks = ",".join("?" * len(contents))
        # sought by content: SQLite would rather go through all that is queued
        where = f"INDEXED BY job_content WHERE state = 'queued' AND flood = 1 AND rule = ? AND sha256 IN ({marks})"
        return {row[0] for row in self.fetch_rows(f"SELECT sha256 FROM job {where}", (rule, *contents))}

    def held_duplicates(self, job: Job) -> list[Job]:
        """Jobs that are held only because ``job``, of the same content and rule, was."""
        rows = self.fetch_rows(
            f"{SELECT_JOB} WHERE sha256 = ? AND rule = ? AND state = 'held' AND error_code = 'duplicate_of_held'"
            " AND id <> ? ORDER BY id",
            (job.sha256, job.rule, job.id),
        )
        return [job_from_row(row) for row in rows]

    def result_outputs(self, contents: Sequence[str]) -> dict[str, Path]:
        """By their hashes, those of ``contents`` that are a result of ours, and where it stood last."""
        sql = (
            "SELECT result_sha256, output FROM job WHERE result IS NOT NULL AND output IS NOT NULL"
            f" AND result_sha256 IN ({','.join('?' * len(contents))}) ORDER BY id"
        )
        return {row[0]: decode_path(row[1]) for row in self.fetch_rows(sql, contents)}

    def find_jobs_by_result(self, sha256: str) -> list[Job]:
        """All jobs whose result has this hash."""
        return [job_from_row(row) for row in self.fetch_rows(f"{SELECT_JOB} WHERE result_sha256 = ?", (sha256,))]

    def rules_with_ready_jobs(self, state: State, now: float) -> list[str]:
        """The rules that have a job in ``state`` whose pause is over, also rules that left the configuration."""
        sql = f"SELECT 1 FROM job WHERE state = ? AND rule = ? AND {_PAUSE_IS_OVER} LIMIT 1"
        rules = [row[0] for row in self.fetch_rows(RULES_WITH_STATE, {"state": state})]
        return [
            rule
            for rule in rules
            if not self._is_postponed(state, rule, now) and self.fetch_rows(sql, (state, rule, now))
        ]

    def rules_with_waiting_originals(self, now: float) -> list[str]:
        """The rules that have an original to dispose of now."""
        return [
            row[0]
            for row in self.fetch_rows(RULES_WITH_WAITING_ORIGINALS)
            if self.next_waiting_original(row[0], now) is not None
        ]

    def next_waiting_original(self, rule: str, now: float) -> Job | None:
        """The oldest job of ``rule`` whose original is to be disposed of now."""
        off = [self._is_postponed(state, rule, now) for state in (State.DONE, State.FAILED)]
        if all(off):
            return None
        some = "" if not any(off) else "AND state <> 'done'" if off[0] else "AND state = 'done'"
        rows = self.fetch_rows(
            f"{SELECT_JOB} WHERE original = 'waiting' AND rule = ? {some} AND {_PAUSE_IS_OVER} ORDER BY id LIMIT 1",
            (rule, now),
        )
        return job_from_row(rows[0]) if rows else None

    def postpone_originals(self, job: Job, until: float) -> None:
        """The original of ``job`` waits for a folder that is away, and with it all of its rule that ended as well, or
        as badly; none of them is tried before ``until`` (Unix seconds), or `Journal.end_pauses`.
        """
        self._pauses[_original_group(job.state), job.rule] = until

    def count_waiting_originals(self, now: float = math.inf) -> int:
        """Number of originals that are still to be disposed of and were not yet tried since the start.

        Those that are put off as a whole at ``now`` are none of them.
        """
        rows = self.fetch_rows(
            "SELECT rule, state, count(*) FROM job WHERE original = 'waiting' AND not_before IS NULL"
            " GROUP BY rule, state"
        )
        return sum(row[2] for row in rows if not self._is_postponed(_original_group(State(row[1])), row[0], now))

    def running_tasks(self, but_for: Container[int] = ()) -> list[RunningTask]:
        """The tasks at PicWish, oldest first, less those of the jobs in ``but_for``."""
        # by the index alone: of thousands that are known already no row is read
        ids = [row[0] for row in self.fetch_rows("SELECT id FROM job WHERE state = 'pending'") if row[0] not in but_for]
        found: list[RunningTask] = []
        for start in range(0, len(ids), _PAGE_SIZE):
            some = ids[start : start + _PAGE_SIZE]
            rows = self.fetch_rows(
                "SELECT id, rule, type, coalesce(submitted_at, 0), coalesce(not_before, 0) FROM job"
                f" WHERE state = 'pending' AND id IN ({','.join('?' * len(some))})",
                some,
            )
            found += [RunningTask(*row) for row in rows]
        return sorted(found, key=attrgetter("submitted_at"))

    def find_latest_job(self, source: Path) -> Job | None:
        """The newest job of a file."""
        return next(iter(self.jobs_of_source(source, limit=1)), None)

    def find_latest_jobs(self, sources: Sequence[Path]) -> dict[Path, Job]:
        """The newest job of each of these files, as far as they have one."""
        marks = ",".join("?" * len(sources))
        sql = f"{SELECT_JOB} WHERE id IN (SELECT max(id) FROM job WHERE source IN ({marks}) GROUP BY source)"
        return {
            job.source: job
            for job in map(job_from_row, self.fetch_rows(sql, [os.fsencode(source) for source in sources]))
        }

    def jobs_of_source(self, source: Path, *, limit: int = -1) -> list[Job]:
        """The jobs of a file, newest first."""
        sql = f"{SELECT_JOB} WHERE source = ? ORDER BY id DESC LIMIT ?"
        return [job_from_row(row) for row in self.fetch_rows(sql, (os.fsencode(source), limit))]

    def known_files(self, rule: str) -> Iterator[tuple[str, Stamp]]:
        """(path below the inbox, stamp) of each file that has a job and may still lie in the inbox."""
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
        """The newest job whose result stands, or is about to stand, at ``output``."""
        rows = self.fetch_rows(f"{SELECT_JOB} WHERE output = ? ORDER BY id DESC LIMIT 1", (os.fsencode(output),))
        return job_from_row(rows[0]) if rows else None

    def is_output_planned(self, output: Path, *, but_for: int) -> bool:
        """Whether the result of a job, other than job ``but_for``, is to stand at ``output`` and may not do so yet."""
        sql = "SELECT 1 FROM job WHERE output = ? AND id <> ? AND state <> 'done' LIMIT 1"
        return bool(self.fetch_rows(sql, (os.fsencode(output), but_for)))

    def find_job_by_message(self, message: str) -> Job | None:
        """The newest job with this line in its history."""
        rows = self.fetch_rows(
            "SELECT job FROM event WHERE message = ? ORDER BY id DESC LIMIT 1", (escape_surrogates(message),)
        )
        return self.get(int(rows[0][0])) if rows else None

    def find_task_owner(self, task_id: str) -> Job | None:
        """The newest job that follows this task."""
        rows = self.fetch_rows(f"{SELECT_JOB} WHERE task_id = ? ORDER BY id DESC LIMIT 1", (task_id,))
        return job_from_row(rows[0]) if rows else None

    def iter_spending(self) -> Iterator[SpendingRecord]:
        """Every submission up to now that PicWish took or may have taken, oldest first.

        Read in pages: a slow reader needs no memory, and keeps no transaction open by which the WAL would grow.
        """
        done, end = 0, int(self.fetch_row("SELECT coalesce(max(id), 0) FROM charge")[0])
        page = f"{SELECT_CHARGE} WHERE charge.id > ? AND charge.id <= ? ORDER BY charge.id LIMIT {_PAGE_SIZE}"
        while rows := self.fetch_rows(page, (done, end)):
            yield from (spending_from_row(row) for row in rows if row["state"] != "released")
            done = rows[-1]["id"]

    def iter_jobs(self, rule: str | None = None) -> Iterator[Job]:
        """Every job up to now, oldest first, read in pages as `spending` is."""
        done, end = 0, int(self.fetch_row("SELECT coalesce(max(id), 0) FROM job")[0])
        while jobs := self.jobs(rule=rule, after=done, limit=_PAGE_SIZE, oldest_first=True):
            for job in jobs:
                if job.id > end:
                    return
                yield job
            done = jobs[-1].id

    def count_blocked(self, state: State) -> int:
        """Number of jobs in ``state`` that were tried, told why it did not go, and put off for a person to mend.

        Those that a flood holds are none of them.
        """
        sql = "SELECT rule, count(*) FROM job WHERE state = ? AND not_before IS NOT NULL AND note IS NOT NULL"
        counts = {row[0]: int(row[1]) for row in self.fetch_rows(f"{sql} AND flood = 0 GROUP BY rule", (state,))}
        whole = "SELECT count(*) FROM job WHERE state = ? AND rule = ? AND flood = 0"
        for rule in [rule for put_off, rule in self._pauses if put_off is state]:
            counts[rule] = int(self.fetch_row(whole, (state, rule))[0])
        return sum(counts.values())

    def check_integrity(self) -> None:
        """Raises `JournalError` if SQLite finds damage (PRAGMA quick_check)."""
        found = self.fetch_row("PRAGMA quick_check(1)")[0]
        if found != "ok":
            raise JournalError(f"the journal is damaged: {self.path} ({found})", hint=RESTORE_HINT)

    def jobs_changed_since(self, event: int, states: Sequence[State]) -> list[Job]:
        """Jobs that are in one of ``states`` and came into another state after line ``event``, oldest first."""
        marks = ",".join("?" * len(states))
        before = "SELECT state FROM event WHERE job = now.job AND id < now.id ORDER BY id DESC LIMIT 1"
        moved = f"SELECT job FROM event AS now WHERE id > ? AND state <> coalesce(({before}), '')"
        sql = f"{SELECT_JOB} WHERE state IN ({marks}) AND id IN ({moved}) ORDER BY id"
        return [job_from_row(row) for row in self.fetch_rows(sql, (*states, event))]

    def is_known_folder(self, folder: Path) -> bool:
        """Whether the folder was there before and was written to."""
        return bool(self.fetch_rows("SELECT 1 FROM folder WHERE path = ?", (os.fsencode(folder),)))

    def folder_mount(self, folder: Path) -> Mount | None:
        """The mount that the folder was last accepted on; None if that is not known yet."""
        rows = self.fetch_rows("SELECT mount_point, mount_kind FROM folder WHERE path = ?", (os.fsencode(folder),))
        return mount_from_row(rows[0]) if rows else None

    def _is_postponed(self, state: State, rule: str, now: float) -> bool:
        until = self._pauses.get((state, rule), 0.0)
        return now < until < now + PAUSE_MAX + 100


def _original_group(state: State) -> State:
    """What originals that go to one place have in common: their jobs are done, or ended badly."""
    return State.DONE if state is State.DONE else State.FAILED


def count_waiting_duplicates(journal: JournalReader) -> int:
    """Number of queued jobs that wait for nothing but another one of their content, queued earlier or delivering.

    `JournalReader.waiting_in_vain` and `floods` count none of them. Looks at each queued job.
    """
    rows = journal.fetch_rows(
        "SELECT rule, count(*) FROM job WHERE state = 'queued' AND flood = 0 AND (not_before IS NULL OR note IS NULL)"
        " AND EXISTS (SELECT 1 FROM job AS other WHERE other.sha256 = job.sha256 AND other.rule = job.rule"
        " AND (other.state = 'delivering' OR other.state = 'queued' AND other.id < job.id)) GROUP BY rule"
    )
    return sum(row[1] for row in rows if (State.QUEUED, row[0]) not in journal._pauses)
