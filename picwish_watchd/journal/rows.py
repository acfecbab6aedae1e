"""Convert rows of the journal to the values of `picwish_watchd.job`, and back."""

import json
import os
import sqlite3
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

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

#: A stored time below this (in 1896) is one after 2262, where 63 bits end: ext4 stores times up to 2446, and they are
#: written as signed numbers.
_MIN_MTIME_NS = -(2**61)


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task at PicWish, with only what the choice of the next poll needs. Times are Unix seconds."""

    id: int
    rule: str
    type: int
    submitted_at: float
    not_before: float


@dataclass(frozen=True, slots=True)
class SpendingRecord:
    """One row of the ledger."""

    id: int
    #: Unix seconds of the submission.
    at: float
    rule: str
    credits: int
    #: "reserved" (under way), "spent" or "doubtful".
    state: str
    job: int
    source: Path

    @property
    def is_in_doubt(self) -> bool:
        """Whether it cannot be known if PicWish charged."""
        return self.state == "doubtful"


class JobChanges(TypedDict, total=False):
    """The fields of a job that a transition may change besides its state."""

    kind: SourceKind
    url: str | None
    stamp: Stamp
    #: None: the file is validated again before it is submitted.
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


#: Columns whose values are those of the `Job` field of the same name.
_PLAIN_JOB_COLUMNS = (
    *("id", "rule", "url", "sha256", "format", "width", "height", "type", "return_type", "sync", "task_id", "attempts"),
    *("refusals", "credits", "credits_in_doubt", "note", "answer", "not_before"),
    *("created_at", "submitted_at", "completed_at"),
)


def job_from_row(row: sqlite3.Row) -> Job:
    """Turn one row of `SELECT_JOB` into a Job."""
    code, result, output = row["error_code"], row["result"], row["output"]
    # A command may read a journal of an earlier version, which lacks the column, before a daemon has migrated it.
    sent = row["sent"] if "sent" in row.keys() else None  # noqa: SIM118 - `in row` looks at the values
    plain: dict[str, Any] = {name: row[name] for name in _PLAIN_JOB_COLUMNS}
    return Job(
        **plain,
        state=State(row["state"]),
        source=decode_path(row["source"]),
        relative=decode_path(row["relative"]),
        stamp=stamp_from_row(row),
        kind=SourceKind(row["kind"]),
        paid=bool(row["paid"]),
        problem=None if code is None else Problem(ErrorCode(code), row["error_message"]),
        result=None if result is None else Result(**json.loads(result)),
        output=None if output is None else decode_path(output),
        original=OriginalStatus(row["original"]),
        pay_again=bool(row["pay_again"]),
        sent=None if sent is None else SentImage(**json.loads(sent)),
    )


def spending_from_row(row: sqlite3.Row) -> SpendingRecord:
    """Turn one row of `SELECT_CHARGE` into a SpendingRecord."""
    return SpendingRecord(**{**row, "source": decode_path(row["source"])})


def event_from_row(row: sqlite3.Row) -> JobEvent:
    """Turn one row of the event table into a JobEvent."""
    return JobEvent(at=row["at"], state=State(row["state"]), message=row["message"])


def stamp_from_row(row: sqlite3.Row) -> Stamp:
    """Return the stamp in a row. Inode numbers have 64 bits without a sign, SQLite's integers are signed."""
    mtime_ns = row["mtime_ns"]
    return Stamp(
        inode=row["inode"] % 2**64,
        size=row["size"],
        mtime_ns=mtime_ns if mtime_ns >= _MIN_MTIME_NS else mtime_ns + 2**64,
    )


def new_job_columns(new: NewJob, at: float) -> dict[str, object]:
    """Return the columns of a new job that is added at ``at`` (Unix seconds)."""
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
    """Return the three columns of a stamp."""
    return {"inode": _to_signed(stamp.inode), "size": stamp.size, "mtime_ns": _to_signed(stamp.mtime_ns)}


def changed_columns(changes: JobChanges) -> dict[str, object]:
    """Return the columns that ``changes`` sets."""
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
    """Turn the bytes of a path, as the file system has them, into a Path."""
    return Path(os.fsdecode(raw))


def mount_from_row(row: sqlite3.Row) -> Mount | None:
    """Return the mount that a folder was accepted on, or None if its row has none."""
    return None if row["mount_point"] is None else Mount(os.fsdecode(row["mount_point"]), str(row["mount_kind"]))


def escape_surrogates(text: str) -> str:
    """Escape what UTF-8 cannot encode: a message may quote a file name that is not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _to_signed(number: int) -> int:
    return (number + 2**63) % 2**64 - 2**63
