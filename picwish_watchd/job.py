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

    #: an image, uploaded as ``image_file``
    FILE = "file"
    #: a ``.url`` or ``.webloc`` file, submitted as ``image_url``
    LINK = "link"


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
    #: a bug of ours; the job is held so that nothing is paid or lost by it
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as a value: a word for scripts and a sentence for a person in a studio."""

    code: ErrorCode
    message: str


class OriginalStatus(StrEnum):
    """What became of the source file once its job had ended."""

    #: still where it was found
    PRESENT = "present"
    #: should be moved or deleted, and could not yet be
    WAITING = "waiting"
    #: moved to `archive` or `failed`
    MOVED = "moved"
    #: nobody knows: it was not there any more when it should have been moved or deleted
    GONE = "gone"
    #: deleted, as `on_success: delete` asks
    DELETED = "deleted"
    #: something else stood there when it should have been moved; that was not touched
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True)
class Stamp:
    """By what a file in an inbox is recognised without reading it (stat(2): st_ino, st_size, st_mtim)."""

    inode: int
    #: bytes
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Result:
    """A result in the spool: whole, checked, synced."""

    #: "jpeg", "png", "webp", "bmp" or "tiff"
    format: str
    #: pixels
    width: int
    #: pixels
    height: int
    #: bytes
    size: int
    #: hexadecimal
    sha256: str


@dataclass(frozen=True, slots=True)
class SentImage:
    """What was sent in place of a source that is larger than PicWish takes."""

    #: "jpeg", "png" or "webp"
    format: str
    #: pixels
    width: int
    #: pixels
    height: int
    #: bytes
    size: int


@dataclass(frozen=True, slots=True)
class NewJob:
    """What intake writes down about a file: everything that is known before PicWish is asked."""

    rule: str
    #: absolute
    source: Path
    #: below the rule's inbox
    relative: Path
    stamp: Stamp
    kind: SourceKind = SourceKind.FILE
    #: of a link
    url: str | None = None
    #: of the bytes, or of the URL; None where a file was refused unread
    sha256: str | None = None
    format: str | None = None
    width: int | None = None
    height: int | None = None
    type: int = 0
    return_type: int = 1
    sync: int = 0
    #: set: the job starts, and ends, as `rejected`
    problem: Problem | None = None
    original: OriginalStatus = OriginalStatus.PRESENT
    #: came in a flood: it waits for `approve`
    flood: bool = False
    #: set: it is itself a result of ours; the job starts, and ends, as `done`
    result_of: Path | None = None


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
    #: submissions that PicWish accepted or may have accepted
    attempts: int
    #: tries in a row that PicWish did not take, or that never reached it; sets the next pause
    refusals: int
    credits: int
    credits_in_doubt: int
    #: the last submission is known to have been charged
    paid: bool
    problem: Problem | None
    result: Result | None
    #: where the result stands, or is about to stand while `delivering`
    output: Path | None
    original: OriginalStatus
    note: str | None
    #: PicWish's last answer for the task: JSON without the image
    answer: str | None
    #: a person said `retry`: if the old task is gone, it is submitted anew
    pay_again: bool
    #: nothing is tried before this moment
    not_before: float | None
    created_at: float
    submitted_at: float | None
    completed_at: float | None
    #: of the last submission; None: the source itself, or nothing yet
    sent: SentImage | None = None


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One line of a job's history."""

    at: float
    state: State
    message: str
