"""Writing down what the inboxes hold: many jobs by one statement, for they may come as a flood."""

import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TypeVar

from picwish_watchd.job import NewJob, State
from picwish_watchd.journal.rows import escape_surrogates, new_job_columns

#: Rows a statement: with some 25 columns fewer values than the oldest SQLite takes (sqlite.org/limits.html: 999).
_ROWS_PER_STATEMENT = 32
_Row = TypeVar("_Row")
_EVENT_COLUMNS = ("job", "at", "state", "message")


def insert_jobs(cursor: sqlite3.Cursor, found: Sequence[NewJob], now: float) -> list[int]:
    """The jobs with the first line of their histories, inside the caller's transaction; their ids in that order."""
    jobs = [new_job_columns(new, now) for new in found]
    ids: list[int] = []
    for some in _iter_batches(jobs):
        cursor.execute(
            _insert_sql("job", tuple(some[0]), len(some)),
            [value for columns in some for value in columns.values()],
        )
        # one after the other: AUTOINCREMENT gives each row one more than the last (sqlite.org/autoinc.html)
        last = cursor.lastrowid
        assert last is not None
        ids += range(last - len(some) + 1, last + 1)
    events = [(job_id, now, *_first_event(new)) for job_id, new in zip(ids, found, strict=True)]
    for lines in _iter_batches(events):
        cursor.execute(_insert_sql("event", _EVENT_COLUMNS, len(lines)), [value for line in lines for value in line])
    return ids


def needs_durable_commit(found: Sequence[NewJob]) -> bool:
    """Whether their commit has to be on the disk before anything else is done.

    What only waits in the queue need not: nothing was done with it, and should it be lost, the next walk finds it
    again. Nothing is paid for before a later commit is on the disk, and with it all before (sqlite.org/wal.html).
    """
    return any(new.problem is not None or new.result_of is not None for new in found)


def _first_event(new: NewJob) -> tuple[State, str]:
    if new.problem is not None:
        return State.REJECTED, escape_surrogates(new.problem.message)
    if new.result_of is not None:
        return State.DONE, escape_surrogates(f"not sent: it is the result that stood at {new.result_of}")
    return State.QUEUED, "found, whole and within the limits"


def _iter_batches(rows: Sequence[_Row]) -> Iterator[Sequence[_Row]]:
    for start in range(0, len(rows), _ROWS_PER_STATEMENT):
        yield rows[start : start + _ROWS_PER_STATEMENT]


@cache
def _insert_sql(table: str, columns: tuple[str, ...], rows: int) -> str:
    row = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * rows)}"
