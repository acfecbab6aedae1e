"""A job: one image on its way from inbox to outbox. Its states are in ``state``."""

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
    """The kind of a source file."""

    #: An image, uploaded as ``image_file``
    FILE = "file"
    #: A ``.url`` or ``.webloc`` file, submitted as ``image_url``
    LINK = "link"


class ErrorCode(StrEnum):
    """Why a job failed. Scripts compare these words; people read the message beside them."""

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
    #: A bug in picwish-watchd; the job is held so that it costs nothing and loses nothing.
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as a value: a word for scripts and a sentence for people."""

    code: ErrorCode
    message: str


class OriginalStatus(StrEnum):
    """What happened to the source file after its job had ended."""

    #: Still where it was found.
    PRESENT = "present"
    #: To be moved or deleted, which was not possible yet.
    WAITING = "waiting"
    #: Moved to `archive` or `failed`.
    MOVED = "moved"
    #: Not known: it was gone when it should have been moved or deleted.
    GONE = "gone"
    #: Deleted, because of `on_success: delete`.
    DELETED = "deleted"
    #: Another file was in its place when it should have been moved; that file was not touched.
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True)
class Stamp:
    """The facts by which a file in an inbox is recognised without reading it (stat(2): st_ino, st_size, st_mtim)."""

    inode: int
    #: Bytes.
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Result:
    """A result in the spool: complete, validated and synced."""

    #: "jpeg", "png", "webp", "bmp" or "tiff"
    format: str
    #: Pixels.
    width: int
    #: Pixels.
    height: int
    #: Bytes.
    size: int
    #: Hexadecimal.
    sha256: str


@dataclass(frozen=True, slots=True)
class SentImage:
    """The smaller image that was sent in place of a source that is larger than PicWish accepts."""

    #: "jpeg", "png" or "webp"
    format: str
    #: Pixels.
    width: int
    #: Pixels.
    height: int
    #: Bytes.
    size: int


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be added to the journal: everything that is known about a file before it is submitted."""

    rule: str
    #: Absolute.
    source: Path
    #: Path below the rule's inbox.
    relative: Path
    stamp: Stamp
    kind: SourceKind = SourceKind.FILE
    #: The address in a link; None for an image.
    url: str | None = None
    #: Of the bytes, or of the URL; None if a file was refused without reading it.
    sha256: str | None = None
    format: str | None = None
    width: int | None = None
    height: int | None = None
    type: int = 0
    return_type: int = 1
    sync: int = 0
    #: If set, the job begins and ends as `rejected`.
    problem: Problem | None = None
    original: OriginalStatus = OriginalStatus.PRESENT
    #: It came in a flood of files and waits for `approve`.
    flood: bool = False
    #: If set, the file is itself one of our results; the job begins and ends as `done`.
    result_of: Path | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One row of the journal. Times are Unix seconds (UTC). Only the journal makes new values."""

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
    #: Submissions that PicWish accepted or may have accepted.
    attempts: int
    #: Tries in a row that PicWish refused or that did not reach it; they set the next pause.
    refusals: int
    credits: int
    credits_in_doubt: int
    #: The last submission is known to have been charged.
    paid: bool
    problem: Problem | None
    result: Result | None
    #: Where the result is, or will be while the state is `delivering`.
    output: Path | None
    original: OriginalStatus
    note: str | None
    #: PicWish's last answer for the task: JSON without the image.
    answer: str | None
    #: Somebody used `retry`: if the old task is gone, the image is submitted again.
    pay_again: bool
    #: Nothing is tried before this time.
    not_before: float | None
    created_at: float
    submitted_at: float | None
    completed_at: float | None
    #: What the last submission sent; None: the source itself, or nothing yet.
    sent: SentImage | None = None


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One line of a job's history."""

    at: float
    state: State
    message: str
