"""What must outlive a restart, that nothing is told twice and nothing forgotten: a small file beside the journal."""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Self

from pydantic import ConfigDict, TypeAdapter

from picwish_watchd.fs.durability import sync_path
from picwish_watchd.notify.message import Message

#: jobs of a group that are told by name
MAX_LISTED_JOBS = 5

# A file with a key that this version does not know is read as if there were none.
_NO_OTHER_KEYS = ConfigDict(extra="forbid")

# bytes; a hundred waiting messages for each of ten notifiers take less than 2 MB
_MAX_FILE_SIZE = 16 * 2**20


@dataclass(slots=True)
class FailureGroup:
    """Jobs that ended alike since the last message about their kind. Times are Unix seconds."""

    __pydantic_config__ = _NO_OTHER_KEYS

    since: float
    #: line of history
    first: int
    last: int
    count: int = 0
    #: job, rule, file, message
    some: list[dict[str, object]] = field(default_factory=list)


@dataclass(slots=True)
class AlertState:
    """A trouble, from its first sight to its last."""

    __pydantic_config__ = _NO_OTHER_KEYS

    since: float
    told: bool = False
    #: since when it is not seen any more
    gone: float | None = None
    #: how its end is told
    over: str = ""
    event: str = ""


@dataclass(slots=True)
class DigestState:
    """The last daily digest of one time of day."""

    __pydantic_config__ = _NO_OTHER_KEYS

    #: local date
    day: str
    at: float
    #: the last line of history that it told of
    event: int


@dataclass(slots=True)
class QueuedMessage:
    """A message, and whom it has not reached yet (`picwish_watchd.notify.channels.send.mark`)."""

    notice: Message
    to: list[str]


@dataclass(slots=True)
class NotifyState:
    """What is kept over a restart. A file that lacks one of these keys is not read."""

    #: the history is told, or gathered, up to this line
    event: int
    #: by "held/submit_outcome_unknown"
    groups: dict[str, FailureGroup]
    #: what was told when, within the last hour
    told: dict[str, float]
    open: dict[str, AlertState]
    #: "day", "month" -> the threshold that was told last
    spent: dict[str, str]
    #: by time of day
    digests: dict[str, DigestState]
    waiting: list[QueuedMessage]

    @classmethod
    def starting_at(cls, event: int) -> Self:
        """Return an empty state that begins after line ``event`` of the history."""
        return cls(event, groups={}, told={}, open={}, spent={}, digests={}, waiting=[])


def state_path(journal: Path) -> Path:
    """Where it is kept."""
    return journal.with_name(journal.name + ".notify")


def load_state(path: Path) -> NotifyState | None:
    """What was kept; None if there is nothing, or nothing that can be read."""
    try:
        # O_NONBLOCK: a pipe that stands there must keep nobody waiting
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            content = file.read(_MAX_FILE_SIZE)
        return _adapter().validate_json(content, strict=True)
    # ValidationError is a ValueError
    except (OSError, ValueError):
        return None


@cache
def _adapter() -> TypeAdapter[NotifyState]:
    return TypeAdapter(NotifyState)


def dump_state(memory: NotifyState) -> bytes:
    """What `save` writes."""
    return json.dumps(asdict(memory)).encode("ascii")


def save_state(path: Path, content: bytes) -> None:
    """Keeps it, whole or not at all, and durably. Raises OSError."""
    fresh = path.with_name(path.name + ".new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    with open(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.rename(fresh, path)
    sync_path(path.parent)


def delete_state(path: Path) -> None:
    """Nobody is to be told any more; what happens until somebody is, is no news then."""
    with suppress(OSError):
        os.unlink(path)
