"""How many jobs stand where, without counting them all each time.

Every change of a job has a line of history. So what was counted as of some line is brought up to date by the jobs that
have a later one: a matter of the changes since, not of the number of jobs. The daemon needs that each second, on the
event loop; and it tells its count in its report, so that `status` need not count either.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from picwish_watchd.journal.queries import COUNT_JOBS
from picwish_watchd.state import State

#: a statement and its values -> its rows
FetchRows = Callable[..., list[sqlite3.Row]]

# lines of history; with more, to count all is as quick
_MAX_CHANGES = 4000

#: A statement sees one moment of the journal, so all is asked in one.
_CHANGES_SQL = """
WITH touched (id) AS (SELECT DISTINCT job FROM event NOT INDEXED WHERE id > :event AND job <= :job),
  change (rule, state, n) AS (
    SELECT rule, state, count(*) FROM job NOT INDEXED WHERE id > :job GROUP BY rule, state
    UNION ALL SELECT rule, state, count(*) FROM job WHERE id IN touched GROUP BY rule, +state
    UNION ALL SELECT rule, (SELECT state FROM event WHERE event.job = job.id AND event.id <= :event
                            ORDER BY event.id DESC LIMIT 1) AS was, -count(*)
    FROM job WHERE id IN touched GROUP BY rule, was)
SELECT rule, state, n, (SELECT max(id) FROM event), (SELECT max(id) FROM job) FROM change"""


class JobCounts(NamedTuple):
    """Number of jobs by rule and state, as of a line of history."""

    #: the last line of history
    last_event_id: int
    #: the last job
    last_job_id: int
    jobs: Mapping[tuple[str, State], int]

    def by_rule(self) -> dict[str, dict[State, int]]:
        """The numbers that are not 0, rule by rule, with the states in the order of their words."""
        found: dict[str, dict[State, int]] = {}
        for (rule, state), number in sorted(self.jobs.items(), key=lambda item: (item[0][1], item[0][0])):
            if number:
                found.setdefault(rule, {})[state] = number
        return found

    def to_json(self) -> dict[str, Any]:
        """As JSON knows it."""
        return {"event": self.last_event_id, "job": self.last_job_id, "jobs": self.by_rule()}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> "JobCounts":
        """What was told by the same version."""
        jobs = {(rule, State(state)): n for rule, states in told["jobs"].items() for state, n in states.items()}
        return cls(told["event"], told["job"], jobs)


def count_jobs(ask: FetchRows) -> JobCounts:
    """All jobs, one by one."""
    rows = ask(COUNT_JOBS)
    if not rows:
        return JobCounts(0, 0, {})
    return JobCounts(rows[0][3], rows[0][4], {(row[0], State(row[1])): row[2] for row in rows})


def update_counts(known: JobCounts, last: int, ask: FetchRows) -> JobCounts:
    """The stock of now, where line ``last`` is the last one of the history."""
    if last == known.last_event_id:
        return known
    if not 0 < last - known.last_event_id <= _MAX_CHANGES:
        return count_jobs(ask)
    rows = ask(_CHANGES_SQL, {"event": known.last_event_id, "job": known.last_job_id})
    # its earlier lines were pruned meanwhile
    if any(row[1] is None for row in rows):
        return count_jobs(ask)
    jobs = Counter(known.jobs)
    for row in rows:
        jobs[row[0], State(row[1])] += row[2]
    return JobCounts(rows[0][3], rows[0][4], jobs) if rows else count_jobs(ask)
