"""Between rows of the journal and the values of `picwish_watchd.job`."""

import json
import os
import sqlite3
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict

from picwish_watchd.fs.mounts import Mount
from picwish_watchd.job import (
    ErrorCode,
    Job,
    JobEvent,
    NewJob,
    OriginalStatus,
    Problem,
    Result,
    SentImage,
    SourceKind,
    Stamp,
    State,
)

#: 63 bits end in 2262, but ext4 keeps times up to 2446: what is below this, in 1896, stands for a time after 2262.
_MIN_MTIME_NS = -(2**61)


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task at PicWish, with just what the choice of the next query needs. Times are Unix seconds."""

    id: int
    rule: str
    type: int
    submitted_at: float
    not_before: float


@dataclass(frozen=True, slots=True)
class SpendingRecord:
    """One row of the ledger."""

    id: int
    #: Unix seconds, of the submission
    at: float
    rule: str
    credits: int
    #: "reserved" (under way), "spent" or "doubtful"
    state: str
    job: int
    source: Path

    @property
    def is_in_doubt(self) -> bool:
        """Whether nobody can know if it was charged."""
        return self.state == "doubtful"


class JobChanges(TypedDict, total=False):
    """What a move may change besides the state."""

    kind: SourceKind
    url: str | None
    stamp: Stamp
    #: None: the file is judged anew before it is submitted
    sha256: str | None
    format: str | None
    width: int | None
    height: int | None
    type: int
    return_type: int
    sync: int
    task_id: str | None
    attempts: int
    refusals: int
    problem: Problem | None
    result: Result | None
    sent: SentImage | None
    output: Path | None
    original: OriginalStatus
    note: str | None
    answer: str | None
    pay_again: bool
    task_seconds: float | None
    not_before: float | None
    submitted_at: float | None
    completed_at: float | None


def job_from_row(row: sqlite3.Row) -> Job:
    """One row of `SELECT_JOB` as a Job."""
    code = row["error_code"]
    result = row["result"]
    output = row["output"]
    # a journal that no newer daemon has opened yet, as a command reads it, lacks the column
    sent = row["sent"] if "sent" in row.keys() else None  # noqa: SIM118 - `in row` looks at the values
    return Job(
        id=row["id"],
        rule=row["rule"],
        state=State(row["state"]),
        source=decode_path(row["source"]),
        relative=decode_path(row["relative"]),
        stamp=stamp_from_row(row),
        kind=SourceKind(row["kind"]),
        url=row["url"],
        sha256=row["sha256"],
        format=row["format"],
        width=row["width"],
        height=row["height"],
        type=row["type"],
        return_type=row["return_type"],
        sync=row["sync"],
        task_id=row["task_id"],
        attempts=row["attempts"],
        refusals=row["refusals"],
        credits=row["credits"],
        credits_in_doubt=row["credits_in_doubt"],
        paid=bool(row["paid"]),
        problem=None if code is None else Problem(ErrorCode(code), row["error_message"]),
        result=None if result is None else Result(**json.loads(result)),
        output=None if output is None else decode_path(output),
        original=OriginalStatus(row["original"]),
        note=row["note"],
        answer=row["answer"],
        pay_again=bool(row["pay_again"]),
        not_before=row["not_before"],
        created_at=row["created_at"],
        submitted_at=row["submitted_at"],
        completed_at=row["completed_at"],
        sent=None if sent is None else SentImage(**json.loads(sent)),
    )


def spending_from_row(row: sqlite3.Row) -> SpendingRecord:
    """One row of `SELECT_CHARGE`."""
    return SpendingRecord(**{**row, "source": decode_path(row["source"])})


def event_from_row(row: sqlite3.Row) -> JobEvent:
    """One row of the event table."""
    return JobEvent(at=row["at"], state=State(row["state"]), message=row["message"])


def stamp_from_row(row: sqlite3.Row) -> Stamp:
    """The stamp in a row; inode numbers are unsigned 64 bit, SQLite's integers signed."""
    mtime_ns = row["mtime_ns"]
    return Stamp(
        inode=row["inode"] % 2**64,
        size=row["size"],
        mtime_ns=mtime_ns if mtime_ns >= _MIN_MTIME_NS else mtime_ns + 2**64,
    )


def new_job_columns(new: NewJob, at: float) -> dict[str, object]:
    """The columns of a new job found at ``at``."""
    problem = new.problem
    state = State.QUEUED
    if problem is not None:
        state = State.REJECTED
    elif new.result_of is not None:
        state = State.DONE
    return {
        "rule": new.rule,
        "state": state,
        "source": os.fsencode(new.source),
        "relative": os.fsencode(new.relative),
        **stamp_columns(new.stamp),
        "kind": new.kind,
        "url": new.url,
        "sha256": new.sha256,
        "format": new.format,
        "width": new.width,
        "height": new.height,
        "type": new.type,
        "return_type": new.return_type,
        "sync": new.sync,
        "error_code": None if problem is None else problem.code,
        "error_message": None if problem is None else escape_surrogates(problem.message),
        "output": None if new.result_of is None else os.fsencode(new.result_of),
        "flood": new.flood,
        "original": new.original,
        "created_at": at,
        "completed_at": None if state is State.QUEUED else at,
    }


def stamp_columns(stamp: Stamp) -> dict[str, object]:
    """The three columns of a stamp."""
    return {"inode": _to_signed(stamp.inode), "size": stamp.size, "mtime_ns": _to_signed(stamp.mtime_ns)}


def changed_columns(changes: JobChanges) -> dict[str, object]:
    """The columns that ``changes`` sets."""
    columns: dict[str, object] = {}
    for name, value in changes.items():
        if name == "problem":
            problem = changes["problem"]
            columns["error_code"] = None if problem is None else problem.code
            columns["error_message"] = None if problem is None else escape_surrogates(problem.message)
        elif isinstance(value, Stamp):
            columns |= stamp_columns(value)
        elif isinstance(value, Result | SentImage):
            columns[name] = json.dumps(asdict(value))
        elif isinstance(value, Path):
            columns[name] = os.fsencode(value)
        elif isinstance(value, str):
            columns[name] = escape_surrogates(value)
        else:
            columns[name] = value
    return columns


def decode_path(raw: bytes) -> Path:
    """A path as the file system spells it."""
    return Path(os.fsdecode(raw))


def mount_from_row(row: sqlite3.Row) -> Mount | None:
    """The mount that a folder was accepted on, as its row tells; None where it does not."""
    return None if row["mount_point"] is None else Mount(os.fsdecode(row["mount_point"]), str(row["mount_kind"]))


def escape_surrogates(text: str) -> str:
    """The text as UTF-8 can hold it: a message may quote a file name that is not UTF-8, which is escaped there."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _to_signed(number: int) -> int:
    return (number + 2**63) % 2**64 - 2**63
