"""Find which jobs have ended since an event, for notifications; what can be many is only counted."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from picwish_watchd.job import State
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.journal.rows import decode_path

#: True for an event that changed the state of its job, not for a note on a job that kept its state.
_IS_STATE_CHANGE = """event.state <> coalesce((SELECT before.state FROM event AS before
  WHERE before.job = event.job AND before.id < event.id ORDER BY before.id DESC LIMIT 1), '')"""


@dataclass(frozen=True, slots=True)
class UnsuccessfulJob:
    """An event with which a job was held, failed or rejected."""

    #: Id of the event.
    event: int
    job: int
    rule: str
    #: Below the inbox.
    relative: Path
    state: State
    #: Error code that the job has now; empty if it has none any more.
    code: str
    message: str


def list_unsuccessful_jobs(journal: JournalReader, after: int, limit: int) -> list[UnsuccessfulJob]:
    """Return events after ``after`` with which a job was held, failed or rejected, oldest first, at most ``limit``."""
    rows = journal.fetch_rows(
        "SELECT event.id, event.job, job.rule, job.relative, event.state, job.error_code, event.message"
        " FROM event JOIN job ON job.id = event.job"
        " WHERE event.id > ? AND event.state IN ('held', 'failed', 'rejected')"
        f" AND {_IS_STATE_CHANGE} ORDER BY event.id LIMIT ?",
        (after, limit),
    )
    return [
        UnsuccessfulJob(row[0], row[1], row[2], decode_path(row[3]), State(row[4]), row[5] or "", row[6])
        for row in rows
    ]


def count_ended_since(journal: JournalReader, after: int) -> Counter[State]:
    """Return the number of jobs that were done, held, failed or rejected after event ``after``, by that state."""
    rows = journal.fetch_rows(
        "SELECT event.state, count(DISTINCT event.job) FROM event"
        " WHERE event.id > ? AND event.state IN ('done', 'held', 'failed', 'rejected')"
        f" AND {_IS_STATE_CHANGE} GROUP BY 1",
        (after,),
    )
    return Counter({State(row[0]): row[1] for row in rows})


def has_result_since(journal: JournalReader, after: int) -> bool:
    """Return whether a result was downloaded after event ``after``.

    If so, the API key, PicWish and the download of results work.
    """
    return bool(journal.fetch_rows("SELECT 1 FROM event WHERE id > ? AND state = 'delivering' LIMIT 1", (after,)))
