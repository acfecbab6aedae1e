"""What the journal may forget: how a job that ended long ago came to its end.

Only lines of history and PicWish's answer go. The row of each job stays for ever (some 500 bytes with its indexes), and
with it all by which a file, a copy, a result of ours or a task is recognised; so do the ledger and the newest line of
each job. So nothing is bought again because something was pruned, and the number of the newest event never falls.
"""

import sqlite3
from dataclasses import dataclass

#: Lines of history that one slice looks at; it takes some milliseconds with all of them removed.
PRUNE_BATCH_SIZE = 200

#: A held job waits for a person, an original that waits is still to be moved. `why` finds a moved original by its line.
#: CROSS JOIN keeps SQLite from going through all jobs of those states instead (sqlite.org/optoverview.html#crossjoin).
_PRUNABLE_EVENTS_SQL = """SELECT event.id, event.job FROM event CROSS JOIN job ON job.id = event.job
  WHERE event.id > :after AND event.id <= :upto
  AND job.state IN ('done', 'rejected', 'failed') AND job.completed_at < :before AND job.original <> 'waiting'
  AND event.message NOT LIKE 'the original was moved to %'
  AND EXISTS (SELECT 1 FROM event AS later WHERE later.job = event.job AND later.id > event.id)"""


@dataclass(frozen=True, slots=True)
class PruneResult:
    """What one slice did."""

    #: the last line of history that it looked at; the next slice begins after it
    last_event_id: int
    #: lines
    removed_count: int
    #: whether nothing old follows
    is_last: bool


@dataclass(frozen=True, slots=True)
class PruneCandidates:
    """The lines of history that a slice may remove, by job."""

    last_event_id: int
    is_last: bool
    event_ids: tuple[int, ...]
    job_ids: frozenset[int]


def find_prunable(connection: sqlite3.Connection, before: float, after: int) -> PruneCandidates:
    """Looks at the next `SLICE` lines after line ``after``, for jobs that ended ``before`` (Unix seconds).

    Lines are written in the order of time, so that the first slice without an old one is the last.
    """
    seen = connection.execute(
        "SELECT id, at FROM event WHERE id > ? ORDER BY id LIMIT ?", (after, PRUNE_BATCH_SIZE)
    ).fetchall()
    if all(at >= before for _, at in seen):
        return PruneCandidates(after, is_last=True, event_ids=(), job_ids=frozenset())
    upto = seen[-1][0]
    old = connection.execute(_PRUNABLE_EVENTS_SQL, {"after": after, "upto": upto, "before": before}).fetchall()
    return PruneCandidates(
        upto, len(seen) < PRUNE_BATCH_SIZE, tuple(row[0] for row in old), frozenset(row[1] for row in old)
    )


def delete_prunable(cursor: sqlite3.Cursor, found: PruneCandidates) -> None:
    """Removes them, within the caller's transaction, and what PicWish answered to their jobs."""
    cursor.execute(f"DELETE FROM event WHERE id IN ({','.join(map(str, found.event_ids))})")
    jobs = ",".join(map(str, found.job_ids))
    cursor.execute(f"UPDATE job SET answer = NULL WHERE id IN ({jobs}) AND answer IS NOT NULL")
