"""Faults by order: what goes wrong, in which request, how often.

A request passes three stages: its ``head`` is read, then its ``body``, then the ``work`` is done (a task is made, a
result found) and the answer is ready. Every action belongs to one of them. What happens at ``head`` or ``body``
leaves no task behind; what happens at ``work`` leaves one that will be charged, though its answer may be lost.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from picwish_watchd.simulator.ledger import Operation, RecordedRequest

Stage = Literal["head", "body", "work"]
TaskData = dict[str, object]


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset (RST). At ``work``: accepted, then lost."""

    at: Stage = "body"


@dataclass(frozen=True, slots=True)
class Hang:
    """Nothing more comes, and the connection stands until the simulator stops. At ``head`` the body stays unread.

    With ``seconds`` it is reset after so long.
    """

    at: Stage = "body"
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class SendRaw:
    """These bytes come instead of an answer, then the end of the connection."""

    data: bytes = b"\x00\x16garbage\r\n\r\n"
    at: Stage = "body"


@dataclass(frozen=True, slots=True)
class Reply:
    """This answer comes instead of the true one. ``body=None`` is the API's own error envelope."""

    status: int
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    at: Stage = "body"


@dataclass(frozen=True, slots=True)
class RefuseConnections:
    """All connections break, and new ones are refused on both ports until ``Simulator.repair``."""

    at: Stage = "head"


@dataclass(frozen=True, slots=True)
class Drip:
    """The true answer comes at this many bytes a second."""

    rate: float
    at: Literal["work"] = "work"


@dataclass(frozen=True, slots=True)
class CutResponse:
    """The true answer ends after so many bytes, head included, and so does the connection (FIN)."""

    after: int = 0
    at: Literal["work"] = "work"


@dataclass(frozen=True, slots=True)
class TruncateBody:
    """The answer is true HTTP, but its body holds only the first bytes. For downloads: half an image."""

    keep: int
    at: Literal["work"] = "work"


@dataclass(frozen=True, slots=True)
class Rewrite:
    """The answer's ``data`` is changed before it leaves. Only answers with status 200 have ``data``."""

    change: Callable[[TaskData], TaskData]
    at: Literal["work"] = "work"


@dataclass(frozen=True, slots=True)
class EndIn:
    """The task that this create makes ends in this state, uncharged unless the state is 1."""

    state: int
    #: None: the usual words for that state
    detail: str | None = None
    at: Literal["body"] = "body"


@dataclass(frozen=True, slots=True)
class NeverEnd:
    """The task that this create makes is processed for ever."""

    at: Literal["body"] = "body"


@dataclass(frozen=True, slots=True)
class DuplicateTaskId:
    """The create is answered with the task_id of the last task; no new one is made."""

    at: Literal["body"] = "body"


Action = (
    Reset
    | Hang
    | SendRaw
    | Reply
    | RefuseConnections
    | Drip
    | CutResponse
    | TruncateBody
    | Rewrite
    | EndIn
    | NeverEnd
    | DuplicateTaskId
)

#: A page that is no answer of the API, as a captive portal or a proxy gives it.
HTML_PAGE = Reply(200, b"<!doctype html><title>Welcome</title><p>Log in", {"Content-Type": "text/html"})


def redirect(to: str, status: int = 307) -> Reply:
    """An answer that sends the client elsewhere."""
    return Reply(status, b"", {"Location": to})


def drop_fields(*names: str) -> Rewrite:
    """``data`` without these fields."""
    return Rewrite(lambda data: {name: value for name, value in data.items() if name not in names})


def nullify_fields(*but: str) -> Rewrite:
    """``data`` with null in every field but these."""
    return Rewrite(lambda data: {name: value if name in but else None for name, value in data.items()})


def stringify_numbers() -> Rewrite:
    """``data`` with every number in quotation marks."""
    return Rewrite(lambda data: {name: str(v) if isinstance(v, int | float) else v for name, v in data.items()})


@dataclass(frozen=True, slots=True)
class Fault:
    """An action, and the requests that it befalls: by default the next one of that operation.

    All conditions that are given must hold. ``when`` sees the request as it is known at the action's stage: a
    create's fields, sha256 and size only from ``body`` on. Raises ValueError for conditions that can never hold.
    """

    on: Operation
    do: Action
    times: int = 1
    #: only the n-th request of that operation since the simulator started, from 1
    nth: int | None = None
    #: only for this image (or image_url)
    sha256: str | None = None
    when: Callable[[RecordedRequest], bool] | None = None

    def __post_init__(self) -> None:
        """Refuses what would wait for ever."""
        if self.on not in get_args(Operation):
            raise ValueError(f"no such operation: {self.on!r}; there are {', '.join(get_args(Operation))}")
        if self.on == "create" and self.sha256 is not None and self.do.at == "head":
            raise ValueError("the image of a create is not known at its head; use at='body'")
        if self.on != "create" and isinstance(self.do, EndIn | NeverEnd | DuplicateTaskId):
            raise ValueError(f"{type(self.do).__name__} is only for creates")

    @property
    def needs_body(self) -> bool:
        """Whether it is only known once the body is read if this fault is meant."""
        return self.on == "create" and self.do.at != "head" and (self.sha256, self.when) != (None, None)

    def matches(self, seen: RecordedRequest, count: int) -> bool:
        """Whether this request, the count-th of its operation, is meant."""
        return (
            self.on == seen.operation
            and self.nth in (None, count)
            and self.sha256 in (None, seen.sha256)
            and (self.when is None or self.when(seen))
        )


class FaultScript:
    """The faults still to come. A request suffers at most one: the first, in the order of adding, that fits it."""

    def __init__(self) -> None:
        self._faults: list[tuple[Fault, int]] = []

    @property
    def pending(self) -> list[Fault]:
        """What has not happened as often as it should."""
        return [fault for fault, _ in self._faults]

    def add(self, *faults: Fault) -> None:
        """Appends."""
        self._faults += [(fault, fault.times) for fault in faults if fault.times > 0]

    def clear(self) -> None:
        """Normal service from now on."""
        self._faults.clear()

    def take_head_fault(self, seen: RecordedRequest, count: int) -> Action | None:
        """What befalls this request before its body is read, used up by one; None for normal service."""
        for place, (fault, _) in enumerate(self._faults):
            if not fault.needs_body and fault.matches(seen, count):
                return self._consume(place) if fault.do.at == "head" else None
        return None

    def take_body_fault(self, seen: RecordedRequest, count: int) -> Action | None:
        """What befalls it now or at the work, used up by one; None for normal service."""
        for place, (fault, _) in enumerate(self._faults):
            if fault.do.at != "head" and fault.matches(seen, count):
                return self._consume(place)
        return None

    def _consume(self, place: int) -> Action:
        fault, left = self._faults[place]
        self._faults[place : place + 1] = [(fault, left - 1)] if left > 1 else []
        return fault.do
