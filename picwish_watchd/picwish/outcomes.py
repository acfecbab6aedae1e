"""What a request can come to. Texts in here are plain: no key, no signature of an address, one line."""

from dataclasses import dataclass, field

from picwish_watchd.job import Problem
from picwish_watchd.picwish.task_info import TaskInfo

# ---- of a create ----


@dataclass(frozen=True, slots=True)
class Accepted:
    """PicWish has the task; from here on queries tell."""

    task_id: str
    task_info: TaskInfo


@dataclass(frozen=True, slots=True)
class Finished:
    """PicWish has done the task and sent the picture along: exactly one of ``image`` and ``spooled`` is set."""

    task_id: str | None
    task_info: TaskInfo
    #: the address to download from
    image_url: str | None = field(repr=False)
    #: bytes of the picture that stand in the sink
    spooled_bytes: int | None


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """PicWish worked on the task and failed, which costs nothing. Also an outcome of a query."""

    task_id: str | None
    task_info: TaskInfo
    state: int
    problem: Problem
    #: another submission may succeed
    is_retryable: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """PicWish will never take this picture as it is."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class NotAccepted:
    """Provably not taken, and not this picture's fault: to be tried again later."""

    reason: str
    #: seconds, as PicWish asks
    retry_after: float | None
    #: the rate was exceeded
    rate_limited: bool


@dataclass(frozen=True, slots=True)
class NotSent:
    """It failed before `started` was awaited: nothing left this machine."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unauthorized:
    """The key is wrong, or has no credits or no right to this service. Also an outcome of a query and of a probe."""

    message: str


@dataclass(frozen=True, slots=True)
class InDoubt:
    """PicWish may have taken the picture and may charge for it, and gave nothing to ask by."""

    reason: str


# ---- of a query; TaskFailed and Unauthorized too ----


@dataclass(frozen=True, slots=True)
class Processing:
    """PicWish works on it."""

    task_info: TaskInfo


@dataclass(frozen=True, slots=True)
class Succeeded:
    """PicWish has done it. One of ``image`` and ``spooled`` is set; or none, and ``flaw`` says what was wrong."""

    task_info: TaskInfo
    #: the address to download from
    image_url: str | None = field(repr=False)
    #: bytes of the picture that stand in the sink
    spooled_bytes: int | None
    image_defect: str | None = None


@dataclass(frozen=True, slots=True)
class TaskNotFound:
    """PicWish does not know, or no longer knows, this task."""

    message: str


@dataclass(frozen=True, slots=True)
class RateLimited:
    """The rate was exceeded. Also an outcome of a probe."""

    #: seconds, as PicWish asks
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class Unavailable:
    """No answer that says anything about the task; asking again is free. Also of a probe and of a download."""

    reason: str
    #: seconds, as the server asks
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class NotStored:
    """The picture came, and this machine could not keep it. Also an outcome of a download."""

    reason: str


# ---- of a download; Unavailable and NotStored too ----


@dataclass(frozen=True, slots=True)
class Downloaded:
    """The picture stands in the sink, as long as the server said it is; not synced, not looked into."""

    #: bytes
    size: int


@dataclass(frozen=True, slots=True)
class DeadUrl:
    """This address will give nothing any more: ask for a fresh one."""

    reason: str


@dataclass(frozen=True, slots=True)
class InvalidResult:
    """The server gave something, and it is no picture."""

    reason: str


# ---- of a probe; Unauthorized, Busy and Unavailable too ----


@dataclass(frozen=True, slots=True)
class Healthy:
    """API and key are well."""


CreateOutcome = Accepted | Finished | TaskFailed | Refused | NotAccepted | NotSent | Unauthorized | InDoubt
QueryOutcome = Processing | Succeeded | TaskFailed | TaskNotFound | RateLimited | Unauthorized | Unavailable | NotStored
DownloadOutcome = Downloaded | DeadUrl | InvalidResult | Unavailable | NotStored
ProbeOutcome = Healthy | Unauthorized | RateLimited | Unavailable
