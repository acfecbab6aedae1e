"""Add many jobs with few statements, as a flood of files may arrive at once."""

import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TypeVar

from picwish_watchd.job import NewJob, State
from picwish_watchd.journal.rows import escape_surrogates, new_job_columns

#: Rows of one statement. With some 25 columns each they are fewer values than the oldest SQLite allows
#: (sqlite.org/limits.html: 999).
_ROWS_PER_STATEMENT = 32
_Row = TypeVar("_Row")
_EVENT_COLUMNS = ("job", "at", "state", "message")


def insert_jobs(cursor: sqlite3.Cursor, new_jobs: Sequence[NewJob], now: float) -> list[int]:
    """Insert the jobs, each with its first event, in the caller's transaction; return their ids in the same order."""
    columns_of_jobs = [new_job_columns(new, now) for new in new_jobs]
    ids: list[int] = []
    for batch in _iter_batches(columns_of_jobs):
        cursor.execute(
            _insert_sql("job", tuple(batch[0]), len(batch)),
            [value for columns in batch for value in columns.values()],
        )
        # The ids are consecutive: AUTOINCREMENT gives each row one more than the last (sqlite.org/autoinc.html).
        last = cursor.lastrowid
        assert last is not None
        ids += range(last - len(batch) + 1, last + 1)
    events = [(job_id, now, *_first_event(new)) for job_id, new in zip(ids, new_jobs, strict=True)]
    for event_batch in _iter_batches(events):
        cursor.execute(
            _insert_sql("event", _EVENT_COLUMNS, len(event_batch)), [value for event in event_batch for value in event]
        )
    return ids


def needs_durable_commit(new_jobs: Sequence[NewJob]) -> bool:
    """Return whether the commit of these jobs has to be on the disk before anything else is done.

    Jobs that only wait in the queue need not: nothing was done with them, and if they are lost, the next scan finds
    their files again. Nothing is paid for before a later commit is on the disk, and with it all earlier ones
    (sqlite.org/wal.html).
    """
    return any(new.problem is not None or new.result_of is not None for new in new_jobs)


def _first_event(new: NewJob) -> tuple[State, str]:
    if new.problem is not None:
        return State.REJECTED, escape_surrogates(new.problem.message)
    if new.result_of is not None:
        return State.DONE, escape_surrogates(f"not submitted: it is the result that was delivered to {new.result_of}")
    return State.QUEUED, "found, complete and within the limits"


def _iter_batches(rows: Sequence[_Row]) -> Iterator[Sequence[_Row]]:
    for start in range(0, len(rows), _ROWS_PER_STATEMENT):
        yield rows[start : start + _ROWS_PER_STATEMENT]


@cache
def _insert_sql(table: str, columns: tuple[str, ...], rows: int) -> str:
    row = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * rows)}"
