"""Keep what must survive a restart, so that nothing is reported twice or forgotten: a small file beside the journal."""

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

#: Jobs of a group that its message lists by name.
MAX_LISTED_JOBS = 5

# A file with a key that this version does not know is read as if there were none.
_NO_OTHER_KEYS = ConfigDict(extra="forbid")

# Bytes that are read; a hundred waiting messages for each of ten notifiers take less than 2 MB.
_MAX_FILE_SIZE = 16 * 2**20


@dataclass(slots=True)
class FailureGroup:
    """Jobs that ended in the same state with the same error code and were not reported yet. Times are Unix seconds."""

    __pydantic_config__ = _NO_OTHER_KEYS

    since: float
    #: First and last line of history.
    first: int
    last: int
    count: int = 0
    #: The first jobs: job, rule, file, message.
    some: list[dict[str, object]] = field(default_factory=list)


@dataclass(slots=True)
class AlertState:
    """An alert from the moment when it is first seen until it is over. Times are Unix seconds."""

    __pydantic_config__ = _NO_OTHER_KEYS

    since: float
    #: Whether it was reported.
    told: bool = False
    #: Since when it is not seen any more.
    gone: float | None = None
    #: Subject of the message at its end.
    over: str = ""
    event: str = ""


@dataclass(slots=True)
class DigestState:
    """The last daily digest of one time of day."""

    __pydantic_config__ = _NO_OTHER_KEYS

    #: Local date.
    day: str
    #: Unix seconds.
    at: float
    #: The last line of history that it covered.
    event: int


@dataclass(slots=True)
class QueuedMessage:
    """A message, and the ids of the notifiers that it must still reach (`assign_notifier_ids`)."""

    notice: Message
    to: list[str]


@dataclass(slots=True)
class NotifyState:
    """Everything in the state file. A file that lacks one of these keys is not read."""

    #: The history is reported or grouped up to this line.
    event: int
    #: By state and error code, such as "held/submit_outcome_unknown".
    groups: dict[str, FailureGroup]
    #: When each group or alert was reported, within the last hour.
    told: dict[str, float]
    #: Alerts by key.
    open: dict[str, AlertState]
    #: "day" or "month" -> period, limit and per cent of the budget that were reported last.
    spent: dict[str, str]
    #: By time of day.
    digests: dict[str, DigestState]
    waiting: list[QueuedMessage]

    @classmethod
    def starting_at(cls, event: int) -> Self:
        """Return an empty state that begins after line ``event`` of the history."""
        return cls(event, groups={}, told={}, open={}, spent={}, digests={}, waiting=[])


def state_path(journal: Path) -> Path:
    """Return the path of the state file that belongs to a journal."""
    return journal.with_name(journal.name + ".notify")


def load_state(path: Path) -> NotifyState | None:
    """Read the state file; None if there is none, or none that this version can read."""
    try:
        # O_NONBLOCK: a pipe in the file's place must not block the daemon.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            content = file.read(_MAX_FILE_SIZE)
        return _adapter().validate_json(content, strict=True)
    # Pydantic's ValidationError is a ValueError.
    except (OSError, ValueError):
        return None


@cache
def _adapter() -> TypeAdapter[NotifyState]:
    return TypeAdapter(NotifyState)


def dump_state(state: NotifyState) -> bytes:
    """Return the content of a state file."""
    return json.dumps(asdict(state)).encode("ascii")


def save_state(path: Path, content: bytes) -> None:
    """Write the state file durably, complete or not at all. Raises OSError."""
    fresh = path.with_name(path.name + ".new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    with open(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.rename(fresh, path)
    sync_path(path.parent)


def delete_state(path: Path) -> None:
    """Remove the state file: there are no notifiers, and what happens until there are some is not reported."""
    with suppress(OSError):
        os.unlink(path)
