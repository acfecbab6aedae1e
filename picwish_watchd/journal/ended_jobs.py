"""What became of jobs since a moment, for those who tell people of it: counted where it can be much."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from picwish_watchd.job import State
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.journal.rows import decode_path

#: A line of history with which the job came into its state; a note on a job that stays there is none.
_IS_STATE_CHANGE = """event.state <> coalesce((SELECT before.state FROM event AS before
  WHERE before.job = event.job AND before.id < event.id ORDER BY before.id DESC LIMIT 1), '')"""


@dataclass(frozen=True, slots=True)
class UnsuccessfulJob:
    """A job that ended badly."""

    #: the number of the line of history
    event: int
    job: int
    rule: str
    #: below the inbox
    relative: Path
    state: State
    #: of the error that the job has now; empty if it has none by now
    code: str
    message: str


def list_unsuccessful_jobs(journal: JournalReader, after: int, limit: int) -> list[UnsuccessfulJob]:
    """Jobs that ended badly, of the history after line ``after``, oldest first, at most ``limit``."""
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
    """Number of jobs that came to each end after line ``after`` of the history."""
    rows = journal.fetch_rows(
        "SELECT event.state, count(DISTINCT event.job) FROM event"
        " WHERE event.id > ? AND event.state IN ('done', 'held', 'failed', 'rejected')"
        f" AND {_IS_STATE_CHANGE} GROUP BY 1",
        (after,),
    )
    return Counter({State(row[0]): row[1] for row in rows})


def has_result_since(journal: JournalReader, after: int) -> bool:
    """Whether a result was brought home after line ``after``: then key, PicWish and the way to results are well."""
    return bool(journal.fetch_rows("SELECT 1 FROM event WHERE id > ? AND state = 'delivering' LIMIT 1", (after,)))
