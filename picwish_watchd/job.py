"""A job: one picture on its way through the house, and the states that it may be in (those are in ``state``)."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from picwish_watchd.state import ALLOWED_TRANSITIONS, UNFINISHED, UNSUCCESSFUL, State

__all__ = [
    "ALLOWED_TRANSITIONS",
    "UNFINISHED",
    "UNSUCCESSFUL",
    "ErrorCode",
    "Job",
    "JobEvent",
    "NewJob",
    "OriginalStatus",
    "Problem",
    "Result",
    "SentImage",
    "SourceKind",
    "Stamp",
    "State",
]


class SourceKind(StrEnum):
    """What the source is."""

    FILE = "file"  #: an image, uploaded as ``image_file``
    LINK = "link"  #: a ``.url`` or ``.webloc`` file, submitted as ``image_url``


class ErrorCode(StrEnum):
    """Why a job ended badly. Scripts compare these words; people read the message beside them."""

    UNSUPPORTED_FORMAT = "unsupported_format"
    NOT_AN_IMAGE = "not_an_image"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    FILE_TOO_LARGE = "file_too_large"
    RESOLUTION_TOO_HIGH = "resolution_too_high"
    SOURCE_CHANGED = "source_changed"
    SOURCE_MISSING = "source_missing"
    UNREADABLE = "unreadable"
    DUPLICATE_OF_HELD = "duplicate_of_held"
    BAD_REQUEST = "bad_request"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    TASK_FAILED = "task_failed"
    TASK_TIMEOUT = "task_timeout"
    TASK_UNKNOWN = "task_unknown"
    RESULT_EXPIRED = "result_expired"
    RESULT_INVALID = "result_invalid"
    SUBMIT_OUTCOME_UNKNOWN = "submit_outcome_unknown"
    OUTPUT_FAILED = "output_failed"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    INTERNAL_ERROR = "internal_error"  #: a bug of ours; the job is held so that nothing is paid or lost by it


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as a value: a word for scripts and a sentence for a person in a studio."""

    code: ErrorCode
    message: str


class OriginalStatus(StrEnum):
    """What became of the source file once its job had ended."""

    PRESENT = "present"  #: still where it was found
    WAITING = "waiting"  #: should be moved or deleted, and could not yet be
    MOVED = "moved"  #: moved to `archive` or `failed`
    GONE = "gone"  #: nobody knows: it was not there any more when it should have been moved or deleted
    DELETED = "deleted"  #: deleted, as `on_success: delete` asks
    REPLACED = "replaced"  #: something else stood there when it should have been moved; that was not touched


@dataclass(frozen=True, slots=True)
class Stamp:
    """By what a file in an inbox is recognised without reading it (stat(2): st_ino, st_size, st_mtim)."""

    inode: int
    size: int  #: bytes
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Result:
    """A result in the spool: whole, checked, synced."""

    format: str  #: "jpeg", "png", "webp", "bmp" or "tiff"
    width: int  #: pixels
    height: int  #: pixels
    size: int  #: bytes
    sha256: str  #: hexadecimal


@dataclass(frozen=True, slots=True)
class SentImage:
    """What was sent in place of a source that is larger than PicWish takes."""

    format: str  #: "jpeg", "png" or "webp"
    width: int  #: pixels
    height: int  #: pixels
    size: int  #: bytes


@dataclass(frozen=True, slots=True)
class NewJob:
    """What intake writes down about a file: everything that is known before PicWish is asked."""

    rule: str
    source: Path  #: absolute
    relative: Path  #: below the rule's inbox
    stamp: Stamp
    kind: SourceKind = SourceKind.FILE
    url: str | None = None  #: of a link
    sha256: str | None = None  #: of the bytes, or of the URL; None where a file was refused unread
    format: str | None = None
    width: int | None = None
    height: int | None = None
    type: int = 0
    return_type: int = 1
    sync: int = 0
    problem: Problem | None = None  #: set: the job starts, and ends, as `rejected`
    original: OriginalStatus = OriginalStatus.PRESENT
    flood: bool = False  #: came in a flood: it waits for `approve`
    result_of: Path | None = None  #: set: it is itself a result of ours; the job starts, and ends, as `done`


@dataclass(frozen=True, slots=True)
class Job:
    """One row of the journal. Times are Unix seconds (UTC); a new value is only ever made by the journal."""

    id: int
    rule: str
    state: State
    source: Path
    relative: Path
    stamp: Stamp
    kind: SourceKind
    url: str | None
    sha256: str | None
    format: str | None
    width: int | None
    height: int | None
    type: int
    return_type: int
    sync: int
    task_id: str | None
    attempts: int  #: submissions that PicWish accepted or may have accepted
    refusals: int  #: tries in a row that PicWish did not take, or that never reached it; sets the next pause
    credits: int
    credits_in_doubt: int
    paid: bool  #: the last submission is known to have been charged
    problem: Problem | None
    result: Result | None
    output: Path | None  #: where the result stands, or is about to stand while `delivering`
    original: OriginalStatus
    note: str | None
    answer: str | None  #: PicWish's last answer for the task: JSON without the image
    pay_again: bool  #: a person said `retry`: if the old task is gone, it is submitted anew
    not_before: float | None  #: nothing is tried before this moment
    created_at: float
    submitted_at: float | None
    completed_at: float | None
    sent: SentImage | None = None  #: of the last submission; None: the source itself, or nothing yet


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One line of a job's history."""

    at: float
    state: State
    message: str
