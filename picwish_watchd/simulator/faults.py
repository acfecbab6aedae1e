"""Scripted faults: what goes wrong, in which request, and how often.

A request passes three stages: its ``head`` is read, its ``body`` is read, and the ``work`` is done (a task is made or
a result is found), after which the response is ready. Every action belongs to one stage. An action at ``head`` or
``body`` leaves no task behind. An action at ``work`` leaves a task that will be charged, although its response may be
lost.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from picwish_watchd.simulator.ledger import Operation, RecordedRequest

Stage = Literal["head", "body", "work"]
TaskData = dict[str, object]


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset (RST). At ``work`` the task was accepted, and its response is lost."""

    at: Stage = "body"


@dataclass(frozen=True, slots=True)
class Hang:
    """No response is sent, and the connection stays open until the simulator stops. At ``head`` the body stays unread.

    With ``seconds`` the connection is reset after that time.
    """

    at: Stage = "body"
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class SendRaw:
    """These bytes are sent instead of a response, then the connection is closed."""

    data: bytes = b"\x00\x16garbage\r\n\r\n"
    at: Stage = "body"


@dataclass(frozen=True, slots=True)
class Reply:
    """This response is sent instead of the true one. ``body=None`` is the API's own error body."""

    status: int
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    at: Stage = "body"


@dataclass(frozen=True, slots=True)
class RefuseConnections:
    """All connections are broken, and new ones are refused on both ports until `Simulator.repair`."""

    at: Stage = "head"


@dataclass(frozen=True, slots=True)
class Drip:
    """The true response is sent at ``rate`` bytes a second."""

    rate: float
    at: Literal["work"] = "work"


@dataclass(frozen=True, slots=True)
class CutResponse:
    """The connection is closed (FIN) after ``after`` bytes of the true response, its head included."""

    after: int = 0
    at: Literal["work"] = "work"


@dataclass(frozen=True, slots=True)
class TruncateBody:
    """The response is valid HTTP, but has only the first ``keep`` bytes of its body, such as half an image."""

    keep: int
    at: Literal["work"] = "work"


@dataclass(frozen=True, slots=True)
class Rewrite:
    """``data`` of the response is changed before it is sent. Only responses with status 200 have ``data``."""

    change: Callable[[TaskData], TaskData]
    at: Literal["work"] = "work"


@dataclass(frozen=True, slots=True)
class EndIn:
    """The task that this create makes ends in ``state``. It is charged only if that is 1 (success)."""

    state: int
    #: None for the usual text of that state
    detail: str | None = None
    at: Literal["body"] = "body"


@dataclass(frozen=True, slots=True)
class NeverEnd:
    """The task that this create makes never ends."""

    at: Literal["body"] = "body"


@dataclass(frozen=True, slots=True)
class DuplicateTaskId:
    """The create returns the task_id of the last task; no new task is made."""

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

#: A web page instead of a response of the API, as a captive portal or a proxy sends it.
HTML_PAGE = Reply(200, b"<!doctype html><title>Welcome</title><p>Log in", {"Content-Type": "text/html"})


def redirect(to: str, status: int = 307) -> Reply:
    """Return a redirect to another URL."""
    return Reply(status, b"", {"Location": to})


def drop_fields(*names: str) -> Rewrite:
    """Return an action that removes these fields from ``data``."""
    return Rewrite(lambda data: {name: value for name, value in data.items() if name not in names})


def nullify_fields(*but: str) -> Rewrite:
    """Return an action that sets all fields of ``data`` to null except these."""
    return Rewrite(lambda data: {name: value if name in but else None for name, value in data.items()})


def stringify_numbers() -> Rewrite:
    """Return an action that turns every number in ``data`` into a string."""
    return Rewrite(lambda data: {name: str(v) if isinstance(v, int | float) else v for name, v in data.items()})


@dataclass(frozen=True, slots=True)
class Fault:
    """An action and the requests that it applies to: by default the next one of that operation.

    All given conditions must hold. ``when`` gets the request as it is known at the action's stage: the fields, sha256
    and size of a create are known from ``body`` on. Raises ValueError for conditions that can never hold.
    """

    on: Operation
    do: Action
    times: int = 1
    #: Only the n-th request of that operation since the simulator started, counted from 1.
    nth: int | None = None
    #: Only requests for this image (or image_url).
    sha256: str | None = None
    when: Callable[[RecordedRequest], bool] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a fault that could never happen."""
        if self.on not in get_args(Operation):
            raise ValueError(f"unknown operation {self.on!r}; the operations are {', '.join(get_args(Operation))}")
        if self.on == "create" and self.sha256 is not None and self.do.at == "head":
            raise ValueError("the image of a create is not known at its head; use at='body'")
        if self.on != "create" and isinstance(self.do, EndIn | NeverEnd | DuplicateTaskId):
            raise ValueError(f"{type(self.do).__name__} is only for creates")

    @property
    def needs_body(self) -> bool:
        """Whether the body must be read to know if this fault applies."""
        return self.on == "create" and self.do.at != "head" and (self.sha256, self.when) != (None, None)

    def matches(self, request: RecordedRequest, count: int) -> bool:
        """Return whether the fault applies to this request, which is number ``count`` of its operation."""
        return (
            self.on == request.operation
            and self.nth in (None, count)
            and self.sha256 in (None, request.sha256)
            and (self.when is None or self.when(request))
        )


class FaultScript:
    """The faults still to come. At most one applies to a request: the first that matches, in the order of adding."""

    def __init__(self) -> None:
        self._faults: list[tuple[Fault, int]] = []

    @property
    def pending(self) -> list[Fault]:
        """The faults that have not happened as often as they should."""
        return [fault for fault, _ in self._faults]

    def add(self, *faults: Fault) -> None:
        """Append faults."""
        self._faults += [(fault, fault.times) for fault in faults if fault.times > 0]

    def clear(self) -> None:
        """Remove all faults."""
        self._faults.clear()

    def take_head_fault(self, request: RecordedRequest, count: int) -> Action | None:
        """Return the action for a request whose body is not read yet, and count it as used; None for normal service."""
        for index, (fault, _) in enumerate(self._faults):
            if not fault.needs_body and fault.matches(request, count):
                return self._consume(index) if fault.do.at == "head" else None
        return None

    def take_body_fault(self, request: RecordedRequest, count: int) -> Action | None:
        """Return the action for a request at the stage body or work, and count it as used; None for normal service."""
        for index, (fault, _) in enumerate(self._faults):
            if fault.do.at != "head" and fault.matches(request, count):
                return self._consume(index)
        return None

    def _consume(self, index: int) -> Action:
        fault, left = self._faults[index]
        self._faults[index : index + 1] = [(fault, left - 1)] if left > 1 else []
        return fault.do
