"""Read what the pipeline's steps do next, and keep in memory which groups of jobs are postponed as a whole."""

import math
import sqlite3
from collections.abc import Container, Sequence
from operator import attrgetter
from pathlib import Path

from picwish_watchd.job import Job, State
from picwish_watchd.journal.queries import (
    NO_DUPLICATE_AHEAD,
    RULES_WITH_STATE,
    RULES_WITH_WAITING_ORIGINALS,
    SELECT_JOB,
)
from picwish_watchd.journal.reader import PAGE_SIZE, JournalReader
from picwish_watchd.journal.rows import RunningTask, job_from_row

#: Seconds. No pause is longer.
PAUSE_MAX = 300.0
#: Seconds that the end of a pause may exceed the longest one, before the clock counts as having been wrong.
_CLOCK_TOLERANCE = 100.0
#: True once a job's pause is over. No pause is longer than 300 s, so an end that is more than 400 s ahead was set while
#: the clock was wrong, and is ignored.
_PAUSE_IS_OVER = "abs(coalesce(not_before, 0) - ? - 200) >= 200"


class QueueReader(JournalReader):
    """Read access for the daemon, which also knows the groups of jobs that it has postponed as a whole.

    `Journal` postpones them. That is kept in memory only: after a restart everything is tried at once.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        super().__init__(connection, path)
        # (state, rule) -> Unix seconds before which no job of the group is tried.
        self._postponed_until: dict[tuple[State, str], float] = {}

    def next_ready_job(
        self, rule: str, now: float, excluding: Sequence[int] = (), *, state: State = State.QUEUED
    ) -> Job | None:
        """Return the oldest job of ``rule`` in ``state`` whose pause is over, except those with an id in ``excluding``.

        A queued job is passed over while another one of the same content is under way, or an earlier one is queued.
        """
        if self._is_postponed(state, rule, now):
            return None
        ids = ",".join(map(str, excluding))
        no_duplicate = NO_DUPLICATE_AHEAD.format(ids) if state is State.QUEUED else ""
        rows = self.fetch_rows(
            f"{SELECT_JOB} WHERE state = ? AND rule = ? AND {_PAUSE_IS_OVER} AND id NOT IN ({ids}) {no_duplicate}"
            " ORDER BY id LIMIT 1",
            (state, rule, now),
        )
        return job_from_row(rows[0]) if rows else None

    def rules_with_ready_jobs(self, state: State, now: float) -> list[str]:
        """Return the rules that have a job in ``state`` whose pause is over, also rules that left the configuration."""
        sql = f"SELECT 1 FROM job WHERE state = ? AND rule = ? AND {_PAUSE_IS_OVER} LIMIT 1"
        rules = [row[0] for row in self.fetch_rows(RULES_WITH_STATE, {"state": state})]
        return [
            rule
            for rule in rules
            if not self._is_postponed(state, rule, now) and self.fetch_rows(sql, (state, rule, now))
        ]

    def rules_with_waiting_originals(self, now: float) -> list[str]:
        """Return the rules that have an original to move or delete now."""
        return [
            row[0]
            for row in self.fetch_rows(RULES_WITH_WAITING_ORIGINALS)
            if self.next_waiting_original(row[0], now) is not None
        ]

    def next_waiting_original(self, rule: str, now: float) -> Job | None:
        """Return the oldest job of ``rule`` whose original is to be moved or deleted now."""
        done_postponed, failed_postponed = (
            self._is_postponed(state, rule, now) for state in (State.DONE, State.FAILED)
        )
        if done_postponed and failed_postponed:
            return None
        restriction = ""
        if done_postponed:
            restriction = "AND state <> 'done'"
        elif failed_postponed:
            restriction = "AND state = 'done'"
        rows = self.fetch_rows(
            f"{SELECT_JOB} WHERE original = 'waiting' AND rule = ? {restriction} AND {_PAUSE_IS_OVER}"
            " ORDER BY id LIMIT 1",
            (rule, now),
        )
        return job_from_row(rows[0]) if rows else None

    def count_waiting_originals(self, now: float = math.inf) -> int:
        """Return the number of originals to move or delete that were not tried yet since the start.

        Those that are postponed as a whole at ``now`` (Unix seconds) are not counted.
        """
        rows = self.fetch_rows(
            "SELECT rule, state, count(*) FROM job WHERE original = 'waiting' AND not_before IS NULL"
            " GROUP BY rule, state"
        )
        return sum(row[2] for row in rows if not self._is_postponed(original_group(State(row[1])), row[0], now))

    def running_tasks(self, excluding: Container[int] = ()) -> list[RunningTask]:
        """Return the tasks at PicWish, oldest first, without those of the jobs with an id in ``excluding``."""
        # The ids come from the index alone: no row is read of the thousands that are known already.
        ids = [
            row[0] for row in self.fetch_rows("SELECT id FROM job WHERE state = 'pending'") if row[0] not in excluding
        ]
        tasks: list[RunningTask] = []
        for start in range(0, len(ids), PAGE_SIZE):
            page = ids[start : start + PAGE_SIZE]
            rows = self.fetch_rows(
                "SELECT id, rule, type, coalesce(submitted_at, 0), coalesce(not_before, 0) FROM job"
                f" WHERE state = 'pending' AND id IN ({','.join('?' * len(page))})",
                page,
            )
            tasks += [RunningTask(*row) for row in rows]
        return sorted(tasks, key=attrgetter("submitted_at"))

    def count_blocked(self, state: State) -> int:
        """Return the number of jobs in ``state`` that were tried in vain and wait for a person to remove the cause.

        Jobs that are held because of `budget.burst` are not counted.
        """
        sql = "SELECT rule, count(*) FROM job WHERE state = ? AND not_before IS NOT NULL AND note IS NOT NULL"
        counts = {row[0]: int(row[1]) for row in self.fetch_rows(f"{sql} AND flood = 0 GROUP BY rule", (state,))}
        whole_rule = "SELECT count(*) FROM job WHERE state = ? AND rule = ? AND flood = 0"
        for rule in [rule for postponed, rule in self._postponed_until if postponed is state]:
            counts[rule] = int(self.fetch_row(whole_rule, (state, rule))[0])
        return sum(counts.values())

    def count_waiting_duplicates(self) -> int:
        """Return the number of queued jobs that only wait for an earlier or delivering job of the same content.

        `count_blocked` and `flood_counts` count none of them. Each queued job is looked at.
        """
        rows = self.fetch_rows(
            "SELECT rule, count(*) FROM job WHERE state = 'queued' AND flood = 0"
            " AND (not_before IS NULL OR note IS NULL)"
            " AND EXISTS (SELECT 1 FROM job AS other WHERE other.sha256 = job.sha256 AND other.rule = job.rule"
            " AND (other.state = 'delivering' OR other.state = 'queued' AND other.id < job.id)) GROUP BY rule"
        )
        return sum(row[1] for row in rows if (State.QUEUED, row[0]) not in self._postponed_until)

    def _is_postponed(self, state: State, rule: str, now: float) -> bool:
        until = self._postponed_until.get((state, rule), 0.0)
        return now < until < now + PAUSE_MAX + _CLOCK_TOLERANCE


def original_group(state: State) -> State:
    """Return the group of originals that go to one folder: DONE for finished jobs, FAILED for all others."""
    return State.DONE if state is State.DONE else State.FAILED
