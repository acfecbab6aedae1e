"""The possible outcomes of each request. Their texts are safe to print: one line, no key, no signature of a URL."""

from dataclasses import dataclass, field

from picwish_watchd.job import Problem
from picwish_watchd.picwish.task_info import TaskInfo

# Outcomes of a create.


@dataclass(frozen=True, slots=True)
class Accepted:
    """PicWish accepted the task; queries return its state from here on."""

    task_id: str
    task_info: TaskInfo


@dataclass(frozen=True, slots=True)
class Finished:
    """PicWish finished the task at once. Exactly one of ``image_url`` and ``spooled_bytes`` is set."""

    task_id: str | None
    task_info: TaskInfo
    #: The URL of the result.
    image_url: str | None = field(repr=False)
    #: Bytes of the image in the sink.
    spooled_bytes: int | None


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """PicWish worked on the task and failed, which costs no credits. Also an outcome of a query."""

    task_id: str | None
    task_info: TaskInfo
    state: int
    problem: Problem
    #: Whether another submission may succeed.
    is_retryable: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """PicWish will never accept this image as it is."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class NotAccepted:
    """PicWish provably did not accept the image, which is not at fault; a later try may succeed."""

    reason: str
    #: Seconds to wait, as PicWish requests.
    retry_after: float | None
    #: Whether the rate was exceeded.
    rate_limited: bool


@dataclass(frozen=True, slots=True)
class NotSent:
    """The request failed before its first byte: nothing left this machine."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unauthorized:
    """The key is wrong, without credits, or not enabled for this service. Also an outcome of queries and probes."""

    message: str


@dataclass(frozen=True, slots=True)
class InDoubt:
    """PicWish may have accepted the image and may charge for it, and gave no task_id to query."""

    reason: str


# Outcomes of a query, beside TaskFailed and Unauthorized.


@dataclass(frozen=True, slots=True)
class Processing:
    """PicWish works on the task."""

    task_info: TaskInfo


@dataclass(frozen=True, slots=True)
class Succeeded:
    """PicWish finished the task. One of ``image_url`` and ``spooled_bytes`` is set, or else ``image_defect``."""

    task_info: TaskInfo
    #: The URL of the result.
    image_url: str | None = field(repr=False)
    #: Bytes of the image in the sink.
    spooled_bytes: int | None
    #: Why the response has no usable image.
    image_defect: str | None = None


@dataclass(frozen=True, slots=True)
class TaskNotFound:
    """PicWish does not know this task, or no longer."""

    message: str


@dataclass(frozen=True, slots=True)
class RateLimited:
    """The rate was exceeded. Also an outcome of a probe."""

    #: Seconds to wait, as PicWish requests.
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class Unavailable:
    """No response says anything about the task; another try is free. Also an outcome of probes and downloads."""

    reason: str
    #: Seconds to wait, as the server requests.
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class NotStored:
    """The image arrived, but this machine could not store it. Also an outcome of a download."""

    reason: str


# Outcomes of a download, beside Unavailable and NotStored.


@dataclass(frozen=True, slots=True)
class Downloaded:
    """The sink has the whole file, of the length that the server announced. It is not synced and not validated."""

    #: Bytes.
    size: int


@dataclass(frozen=True, slots=True)
class DeadUrl:
    """This URL will never deliver the result again; a query brings a fresh one."""

    reason: str


@dataclass(frozen=True, slots=True)
class InvalidResult:
    """The server sent something that is no image."""

    reason: str


# Outcomes of a probe, beside Unauthorized, RateLimited and Unavailable.


@dataclass(frozen=True, slots=True)
class Healthy:
    """The API works and accepts the key."""


CreateOutcome = Accepted | Finished | TaskFailed | Refused | NotAccepted | NotSent | Unauthorized | InDoubt
QueryOutcome = Processing | Succeeded | TaskFailed | TaskNotFound | RateLimited | Unauthorized | Unavailable | NotStored
DownloadOutcome = Downloaded | DeadUrl | InvalidResult | Unavailable | NotStored
ProbeOutcome = Healthy | Unauthorized | RateLimited | Unavailable
