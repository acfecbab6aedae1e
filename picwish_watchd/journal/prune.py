"""Delete the history of jobs that ended long ago.

Only events and PicWish's answer are deleted. The row of each job (some 500 bytes with its indexes) is kept for ever,
and with it all that identifies a file, a copy, a result of ours or a task. The ledger and the newest event of each job
are kept too. So no image is paid for again because of pruning, and the highest event id never decreases.
"""

import sqlite3
from dataclasses import dataclass

#: Events that one batch looks at. Deleting all of them takes some milliseconds.
PRUNE_BATCH_SIZE = 200

#: Left out are held jobs, which wait for a person, jobs whose original is still to be moved, and the events by which
#: `why` finds a moved original. CROSS JOIN keeps SQLite from going through all jobs of these states instead
#: (sqlite.org/optoverview.html#crossjoin).
_PRUNABLE_EVENTS_SQL = """SELECT event.id, event.job FROM event CROSS JOIN job ON job.id = event.job
  WHERE event.id > :after AND event.id <= :upto
  AND job.state IN ('done', 'rejected', 'failed') AND job.completed_at < :before AND job.original <> 'waiting'
  AND event.message NOT LIKE 'the original was moved to %'
  AND EXISTS (SELECT 1 FROM event AS later WHERE later.job = event.job AND later.id > event.id)"""


@dataclass(frozen=True, slots=True)
class PruneResult:
    """What one batch did."""

    #: Last event that the batch looked at; the next batch begins after it.
    last_event_id: int
    #: Number of events deleted.
    removed_count: int
    #: Whether no old event follows.
    is_last: bool


@dataclass(frozen=True, slots=True)
class PruneCandidates:
    """The events that a batch may delete, and their jobs."""

    last_event_id: int
    is_last: bool
    event_ids: tuple[int, ...]
    job_ids: frozenset[int]


def find_prunable(connection: sqlite3.Connection, before: float, after: int) -> PruneCandidates:
    """Return what may be deleted of the `PRUNE_BATCH_SIZE` events after event ``after``.

    That is: the events of jobs that ended before ``before`` (Unix seconds). Events are in order of time, so the first
    batch without an old event is the last one.
    """
    batch = connection.execute(
        "SELECT id, at FROM event WHERE id > ? ORDER BY id LIMIT ?", (after, PRUNE_BATCH_SIZE)
    ).fetchall()
    if all(at >= before for _, at in batch):
        return PruneCandidates(after, is_last=True, event_ids=(), job_ids=frozenset())
    upto = batch[-1][0]
    rows = connection.execute(_PRUNABLE_EVENTS_SQL, {"after": after, "upto": upto, "before": before}).fetchall()
    return PruneCandidates(
        upto, len(batch) < PRUNE_BATCH_SIZE, tuple(row[0] for row in rows), frozenset(row[1] for row in rows)
    )


def delete_prunable(cursor: sqlite3.Cursor, candidates: PruneCandidates) -> None:
    """Delete the events, and PicWish's answers to their jobs, within the caller's transaction."""
    cursor.execute(f"DELETE FROM event WHERE id IN ({','.join(map(str, candidates.event_ids))})")
    jobs = ",".join(map(str, candidates.job_ids))
    cursor.execute(f"UPDATE job SET answer = NULL WHERE id IN ({jobs}) AND answer IS NOT NULL")
