"""Count jobs by rule and state, without counting all of them each time.

Each change of a job adds an event. So counts as of one event are brought up to date by the jobs that have a later one,
which costs as much as has changed since, not as much as there are jobs. The daemon needs the counts each second, on the
event loop. It also puts them into its report, so that `status` need not count either.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from picwish_watchd.journal.queries import COUNT_JOBS
from picwish_watchd.state import State

#: Takes a statement and its values, and returns its rows.
FetchRows = Callable[..., list[sqlite3.Row]]

#: Events. After more of them, counting all jobs is as fast.
_MAX_CHANGES = 4000

#: One statement for everything, as a statement sees one state of the journal.
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
    """Number of jobs by rule and state, as of an event."""

    #: The last event that is taken into account.
    last_event_id: int
    #: The last job that is counted.
    last_job_id: int
    jobs: Mapping[tuple[str, State], int]

    def by_rule(self) -> dict[str, dict[State, int]]:
        """Return the numbers that are not 0 by rule, with the states in alphabetical order."""
        counts: dict[str, dict[State, int]] = {}
        for (rule, state), number in sorted(self.jobs.items(), key=lambda item: (item[0][1], item[0][0])):
            if number:
                counts.setdefault(rule, {})[state] = number
        return counts

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON values, for `from_json`."""
        return {"event": self.last_event_id, "job": self.last_job_id, "jobs": self.by_rule()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "JobCounts":
        """Return the counts that `to_json` of the same version wrote."""
        jobs = {(rule, State(state)): n for rule, states in data["jobs"].items() for state, n in states.items()}
        return cls(data["event"], data["job"], jobs)


def count_jobs(fetch_rows: FetchRows) -> JobCounts:
    """Count all jobs."""
    rows = fetch_rows(COUNT_JOBS)
    if not rows:
        return JobCounts(0, 0, {})
    return JobCounts(rows[0][3], rows[0][4], {(row[0], State(row[1])): row[2] for row in rows})


def update_counts(known: JobCounts, last_event_id: int, fetch_rows: FetchRows) -> JobCounts:
    """Bring ``known`` up to date, where ``last_event_id`` is the newest event of the journal."""
    if last_event_id == known.last_event_id:
        return known
    if not 0 < last_event_id - known.last_event_id <= _MAX_CHANGES:
        return count_jobs(fetch_rows)
    rows = fetch_rows(_CHANGES_SQL, {"event": known.last_event_id, "job": known.last_job_id})
    # A state of NULL: the earlier events of a job were pruned meanwhile.
    if any(row[1] is None for row in rows):
        return count_jobs(fetch_rows)
    jobs = Counter(known.jobs)
    for row in rows:
        jobs[row[0], State(row[1])] += row[2]
    return JobCounts(rows[0][3], rows[0][4], jobs) if rows else count_jobs(fetch_rows)
