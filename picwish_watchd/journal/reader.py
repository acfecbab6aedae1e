"""Reading the journal: what commands show and what the steps pull from."""

import math
import os
import sqlite3
from collections.abc import Container, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from picwish_watchd.errors import JournalError
from picwish_watchd.job import Job, JobEvent, Stamp, State
from picwish_watchd.journal.queries import NONE_IS_BEFORE, RULES_WITH, RULES_WITH_ORIGINALS, SELECT_CHARGE, SELECT_JOB
from picwish_watchd.journal.rows import (
    Running,
    Spending,
    event_from,
    job_from,
    mount_from,
    path_from,
    spending_from,
    stamp_from,
    storable,
)
from picwish_watchd.journal.sqlite_errors import RESTORE, translated
from picwish_watchd.journal.status_reader import Overview

if TYPE_CHECKING:
    from picwish_watchd.fs.mounts import Mount

# rows that are read at once where there may be a million
_PAGE = 500
#: seconds; no pause lasts longer
PAUSE_MAX = 300.0
#: The pause is over. None lasts over 300 s: one that ends in more than 400 s was set by a clock that was ahead.
_OVER = "abs(coalesce(not_before, 0) - ? - 200) >= 200"


class JournalReader(Overview):
    """Read access. `open` gives a reader of its own; `Journal` reads through its writing connection."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        super().__init__(connection, path)
        # what is put off as a whole, and until when (Unix seconds)
        self._pauses: dict[tuple[State, str], float] = {}

    def get(self, job_id: int) -> Job | None:
        """One job."""
        rows = self._rows(SELECT_JOB + "WHERE id = ?", (job_id,)) if 0 < job_id < 2**63 else []
        return job_from(rows[0]) if rows else None

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
        return [job_from(row) for row in self._rows(sql, (*values, limit))]

    def history(self, job_id: int) -> list[JobEvent]:
        """All that happened to a job, oldest first."""
        rows = self._rows("SELECT at, state, message FROM event WHERE job = ? ORDER BY id", (job_id,))
        return [event_from(row) for row in rows]

    def ready(
        self, rule: str, now: float, leaving_out: Sequence[int] = (), *, state: State = State.QUEUED
    ) -> Job | None:
        """The oldest job of ``rule`` in ``state`` whose pause is over, except those that are on their way already.

        A queued job waits while another one of the same content is under way, or an earlier one is queued.
        """
        if self._is_put_off(state, rule, now):
            return None
        skip = ",".join(map(str, leaving_out))
        waits = NONE_IS_BEFORE.format(skip) if state is State.QUEUED else ""
        rows = self._rows(
            f"{SELECT_JOB} WHERE state = ? AND rule = ? AND {_OVER} AND id NOT IN ({skip}) {waits} ORDER BY id LIMIT 1",
            (state, rule, now),
        )
        return job_from(rows[0]) if rows else None

    def twins(self, job: Job, model: int) -> list[Job]:
        """Other jobs of the same content, rule and ``type``: with a result, newest first; then earlier held ones."""
        rows = self._rows(
            f"{SELECT_JOB} WHERE sha256 = ? AND rule = ? AND type = ? AND"
            " (state = 'done' AND id <> ? AND result IS NOT NULL OR state = 'held' AND id < ?)"
            " ORDER BY state, id DESC",
            (job.sha256, job.rule, model, job.id, job.id),
        )
        return [job_from(row) for row in rows]

    def contents(self, sha256: str, rule: str, model: int) -> list[Job]:
        """Jobs of one content, rule and ``type`` that a copy would follow: with a result, newest first; then others."""
        rows = self._rows(
            f"{SELECT_JOB} WHERE sha256 = ? AND rule = ? AND type = ? AND state NOT IN ('rejected', 'failed')"
            " AND (state <> 'done' OR result IS NOT NULL) ORDER BY state <> 'done', id DESC",
            (sha256, rule, model),
        )
        return [job_from(row) for row in rows]

    def in_flood(self, rule: str, contents: Sequence[str]) -> set[str]:
        """Those of ``contents`` of which an image of ``rule`` waits for `approve`."""
        marks = ",".join("?" * len(contents))
        # sought by content: SQLite would rather go through all that is queued
        where = f"INDEXED BY job_content WHERE state = 'queued' AND flood = 1 AND rule = ? AND sha256 IN ({marks})"
        return {row[0] for row in self._rows(f"SELECT sha256 FROM job {where}", (rule, *contents))}

    def held_copies(self, job: Job) -> list[Job]:
        """Jobs that are held only because ``job``, of the same content and rule, was."""
        rows = self._rows(
            f"{SELECT_JOB} WHERE sha256 = ? AND rule = ? AND state = 'held' AND error_code = 'duplicate_of_held'"
            " AND id <> ? ORDER BY id",
            (job.sha256, job.rule, job.id),
        )
        return [job_from(row) for row in rows]

    def outputs_of(self, contents: Sequence[str]) -> dict[str, Path]:
        """By their hashes, those of ``contents`` that are a result of ours, and where it stood last."""
        sql = (
            "SELECT result_sha256, output FROM job WHERE result IS NOT NULL AND output IS NOT NULL"
            f" AND result_sha256 IN ({','.join('?' * len(contents))}) ORDER BY id"
        )
        return {row[0]: path_from(row[1]) for row in self._rows(sql, contents)}

    def makers_of(self, sha256: str) -> list[Job]:
        """All jobs whose result has this hash."""
        return [job_from(row) for row in self._rows(f"{SELECT_JOB} WHERE result_sha256 = ?", (sha256,))]

    def rules_with(self, state: State, now: float) -> list[str]:
        """The rules that have a job in ``state`` whose pause is over, also rules that left the configuration."""
        sql = f"SELECT 1 FROM job WHERE state = ? AND rule = ? AND {_OVER} LIMIT 1"
        rules = [row[0] for row in self._rows(RULES_WITH, {"state": state})]
        return [
            rule for rule in rules if not self._is_put_off(state, rule, now) and self._rows(sql, (state, rule, now))
        ]

    def rules_with_originals(self, now: float) -> list[str]:
        """The rules that have an original to dispose of now."""
        return [row[0] for row in self._rows(RULES_WITH_ORIGINALS) if self.next_original(row[0], now) is not None]

    def next_original(self, rule: str, now: float) -> Job | None:
        """The oldest job of ``rule`` whose original is to be disposed of now."""
        off = [self._is_put_off(state, rule, now) for state in (State.DONE, State.FAILED)]
        if all(off):
            return None
        some = "" if not any(off) else "AND state <> 'done'" if off[0] else "AND state = 'done'"
        rows = self._rows(
            f"{SELECT_JOB} WHERE original = 'waiting' AND rule = ? {some} AND {_OVER} ORDER BY id LIMIT 1",
            (rule, now),
        )
        return job_from(rows[0]) if rows else None

    def put_off_originals(self, job: Job, until: float) -> None:
        """The original of ``job`` waits for a folder that is away, and with it all of its rule that ended as well, or
        as badly; none of them is tried before ``until`` (Unix seconds), or `Journal.end_pauses`.
        """
        self._pauses[_ended(job.state), job.rule] = until

    def originals_waiting(self, now: float = math.inf) -> int:
        """Number of originals that are still to be disposed of and were not yet tried since the start.

        Those that are put off as a whole at ``now`` are none of them.
        """
        rows = self._rows(
            "SELECT rule, state, count(*) FROM job WHERE original = 'waiting' AND not_before IS NULL"
            " GROUP BY rule, state"
        )
        return sum(row[2] for row in rows if not self._is_put_off(_ended(State(row[1])), row[0], now))

    def running(self, but_for: Container[int] = ()) -> list[Running]:
        """The tasks at PicWish, oldest first, less those of the jobs in ``but_for``."""
        # by the index alone: of thousands that are known already no row is read
        ids = [row[0] for row in self._rows("SELECT id FROM job WHERE state = 'pending'") if row[0] not in but_for]
        found: list[Running] = []
        for start in range(0, len(ids), _PAGE):
            some = ids[start : start + _PAGE]
            rows = self._rows(
                "SELECT id, rule, type, coalesce(submitted_at, 0), coalesce(not_before, 0) FROM job"
                f" WHERE state = 'pending' AND id IN ({','.join('?' * len(some))})",
                some,
            )
            found += [Running(*row) for row in rows]
        return sorted(found, key=attrgetter("submitted_at"))

    def last_of(self, source: Path) -> Job | None:
        """The newest job of a file."""
        return next(iter(self.all_of(source, limit=1)), None)

    def last_of_each(self, sources: Sequence[Path]) -> dict[Path, Job]:
        """The newest job of each of these files, as far as they have one."""
        marks = ",".join("?" * len(sources))
        sql = f"{SELECT_JOB} WHERE id IN (SELECT max(id) FROM job WHERE source IN ({marks}) GROUP BY source)"
        return {job.source: job for job in map(job_from, self._rows(sql, [os.fsencode(source) for source in sources]))}

    def all_of(self, source: Path, *, limit: int = -1) -> list[Job]:
        """The jobs of a file, newest first."""
        sql = f"{SELECT_JOB} WHERE source = ? ORDER BY id DESC LIMIT ?"
        return [job_from(row) for row in self._rows(sql, (os.fsencode(source), limit))]

    def known(self, rule: str) -> Iterator[tuple[str, Stamp]]:
        """(path below the inbox, stamp) of each file that has a job and may still lie in the inbox."""
        with translated(self.path):
            cursor = self._connection.execute(
                "SELECT relative, inode, size, mtime_ns FROM job"
                " WHERE rule = ? AND original IN ('present', 'waiting')"
                " AND coalesce(error_code, '') NOT IN ('source_missing', 'source_changed') ORDER BY id",
                (rule,),
            )
            for row in cursor:
                yield os.fsdecode(row["relative"]), stamp_from(row)

    def owner_of_output(self, output: Path) -> Job | None:
        """The newest job whose result stands, or is about to stand, at ``output``."""
        rows = self._rows(f"{SELECT_JOB} WHERE output = ? ORDER BY id DESC LIMIT 1", (os.fsencode(output),))
        return job_from(rows[0]) if rows else None

    def is_planned(self, output: Path, *, but_for: int) -> bool:
        """Whether the result of a job, other than job ``but_for``, is to stand at ``output`` and may not do so yet."""
        sql = "SELECT 1 FROM job WHERE output = ? AND id <> ? AND state <> 'done' LIMIT 1"
        return bool(self._rows(sql, (os.fsencode(output), but_for)))

    def last_told(self, message: str) -> Job | None:
        """The newest job with this line in its history."""
        rows = self._rows("SELECT job FROM event WHERE message = ? ORDER BY id DESC LIMIT 1", (storable(message),))
        return self.get(int(rows[0][0])) if rows else None

    def owner_of_task(self, task_id: str) -> Job | None:
        """The newest job that follows this task."""
        rows = self._rows(f"{SELECT_JOB} WHERE task_id = ? ORDER BY id DESC LIMIT 1", (task_id,))
        return job_from(rows[0]) if rows else None

    def spending(self) -> Iterator[Spending]:
        """Every submission up to now that PicWish took or may have taken, oldest first.

        Read in pages: a slow reader needs no memory, and keeps no transaction open by which the WAL would grow.
        """
        done, end = 0, int(self._row("SELECT coalesce(max(id), 0) FROM charge")[0])
        page = f"{SELECT_CHARGE} WHERE charge.id > ? AND charge.id <= ? ORDER BY charge.id LIMIT {_PAGE}"
        while rows := self._rows(page, (done, end)):
            yield from (spending_from(row) for row in rows if row["state"] != "released")
            done = rows[-1]["id"]

    def all_jobs(self, rule: str | None = None) -> Iterator[Job]:
        """Every job up to now, oldest first, read in pages as `spending` is."""
        done, end = 0, int(self._row("SELECT coalesce(max(id), 0) FROM job")[0])
        while jobs := self.jobs(rule=rule, after=done, limit=_PAGE, oldest_first=True):
            for job in jobs:
                if job.id > end:
                    return
                yield job
            done = jobs[-1].id

    def waiting_in_vain(self, state: State) -> int:
        """Number of jobs in ``state`` that were tried, told why it did not go, and put off for a person to mend.

        Those that a flood holds are none of them.
        """
        sql = "SELECT rule, count(*) FROM job WHERE state = ? AND not_before IS NOT NULL AND note IS NOT NULL"
        counts = {row[0]: int(row[1]) for row in self._rows(f"{sql} AND flood = 0 GROUP BY rule", (state,))}
        whole = "SELECT count(*) FROM job WHERE state = ? AND rule = ? AND flood = 0"
        for rule in [rule for put_off, rule in self._pauses if put_off is state]:
            counts[rule] = int(self._row(whole, (state, rule))[0])
        return sum(counts.values())

    def verify(self) -> None:
        """Raises `JournalError` if SQLite finds damage (PRAGMA quick_check)."""
        found = self._row("PRAGMA quick_check(1)")[0]
        if found != "ok":
            raise JournalError(f"the journal is damaged: {self.path} ({found})", hint=RESTORE)

    def changed_since(self, event: int, states: Sequence[State]) -> list[Job]:
        """Jobs that are in one of ``states`` and came into another state after line ``event``, oldest first."""
        marks = ",".join("?" * len(states))
        before = "SELECT state FROM event WHERE job = now.job AND id < now.id ORDER BY id DESC LIMIT 1"
        moved = f"SELECT job FROM event AS now WHERE id > ? AND state <> coalesce(({before}), '')"
        sql = f"{SELECT_JOB} WHERE state IN ({marks}) AND id IN ({moved}) ORDER BY id"
        return [job_from(row) for row in self._rows(sql, (*states, event))]

    def folder_seen(self, folder: Path) -> bool:
        """Whether the folder was there before and was written to."""
        return bool(self._rows("SELECT 1 FROM folder WHERE path = ?", (os.fsencode(folder),)))

    def folder_mount(self, folder: Path) -> "Mount | None":
        """The mount that the folder was last accepted on; None if that is not known yet."""
        rows = self._rows("SELECT mount_point, mount_kind FROM folder WHERE path = ?", (os.fsencode(folder),))
        return mount_from(rows[0]) if rows else None

    def _is_put_off(self, state: State, rule: str, now: float) -> bool:
        until = self._pauses.get((state, rule), 0.0)
        return now < until < now + PAUSE_MAX + 100


def _ended(state: State) -> State:
    """What originals that go to one place have in common: their jobs are done, or ended badly."""
    return State.DONE if state is State.DONE else State.FAILED


def behind_another(journal: JournalReader) -> int:
    """Number of queued jobs that wait for nothing but another one of their content, queued earlier or delivering.

    `JournalReader.waiting_in_vain` and `floods` count none of them. Looks at each queued job.
    """
    rows = journal._rows(
        "SELECT rule, count(*) FROM job WHERE state = 'queued' AND flood = 0 AND (not_before IS NULL OR note IS NULL)"
        " AND EXISTS (SELECT 1 FROM job AS other WHERE other.sha256 = job.sha256 AND other.rule = job.rule"
        " AND (other.state = 'delivering' OR other.state = 'queued' AND other.id < job.id)) GROUP BY rule"
    )
    return sum(row[1] for row in rows if (State.QUEUED, row[0]) not in journal._pauses)
