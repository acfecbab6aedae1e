"""What the journal may forget: how a job that ended long ago came to its end.

Only lines of history and PicWish's answer go. The row of each job stays for ever (some 500 bytes with its indexes), and
with it all by which a file, a copy, a result of ours or a task is recognised; so do the ledger and the newest line of
each job. So nothing is bought again because something was pruned, and the number of the newest event never falls.
"""

import sqlite3
from dataclasses import dataclass

#: Lines of history that one slice looks at; it takes some milliseconds with all of them removed.
SLICE = 200

#: A held job waits for a person, an original that waits is still to be moved. `why` finds a moved original by its line.
#: CROSS JOIN keeps SQLite from going through all jobs of those states instead (sqlite.org/optoverview.html#crossjoin).
_OLD_LINES = """SELECT event.id, event.job FROM event CROSS JOIN job ON job.id = event.job
  WHERE event.id > :after AND event.id <= :upto
  AND job.state IN ('done', 'rejected', 'failed') AND job.completed_at < :before AND job.original <> 'waiting'
  AND event.message NOT LIKE 'the original was moved to %'
  AND EXISTS (SELECT 1 FROM event AS later WHERE later.job = event.job AND later.id > event.id)"""


@dataclass(frozen=True, slots=True)
class Slice:
    """What one slice did."""

    #: the last line of history that it looked at; the next slice begins after it
    upto: int
    #: lines
    removed: int
    #: whether nothing old follows
    last: bool


@dataclass(frozen=True, slots=True)
class Found:
    """The lines of history that a slice may remove, by job."""

    upto: int
    last: bool
    lines: tuple[int, ...]
    jobs: frozenset[int]


def look(connection: sqlite3.Connection, before: float, after: int) -> Found:
    """Looks at the next `SLICE` lines after line ``after``, for jobs that ended ``before`` (Unix seconds).

    Lines are written in the order of time, so that the first slice without an old one is the last.
    """
    seen = connection.execute("SELECT id, at FROM event WHERE id > ? ORDER BY id LIMIT ?", (after, SLICE)).fetchall()
    if all(at >= before for _, at in seen):
        return Found(after, last=True, lines=(), jobs=frozenset())
    upto = seen[-1][0]
    old = connection.execute(_OLD_LINES, {"after": after, "upto": upto, "before": before}).fetchall()
    return Found(upto, len(seen) < SLICE, tuple(row[0] for row in old), frozenset(row[1] for row in old))


def remove(cursor: sqlite3.Cursor, found: Found) -> None:
    """Removes them, within the caller's transaction, and what PicWish answered to their jobs."""
    cursor.execute(f"DELETE FROM event WHERE id IN ({','.join(map(str, found.lines))})")
    jobs = ",".join(map(str, found.jobs))
    cursor.execute(f"UPDATE job SET answer = NULL WHERE id IN ({jobs}) AND answer IS NOT NULL")
