"""What must outlive a restart, that nothing is told twice and nothing forgotten: a small file beside the journal."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from picwish_watchd.notify.message import Notice

#: jobs of a group that are told by name
SOME = 5

# bytes; a hundred waiting messages for each of ten notifiers take less than 2 MB
_LARGEST = 16 * 2**20


@dataclass(slots=True)
class Group:
    """Jobs that ended alike since the last message about their kind. Times are Unix seconds."""

    since: float
    #: line of history
    first: int
    last: int
    count: int = 0
    #: job, rule, file, message
    some: list[dict[str, object]] = field(default_factory=list)


@dataclass(slots=True)
class Episode:
    """A trouble, from its first sight to its last."""

    since: float
    told: bool = False
    #: since when it is not seen any more
    gone: float | None = None
    #: how its end is told
    over: str = ""
    event: str = ""


@dataclass(slots=True)
class Digested:
    """The last daily digest of one time of day."""

    #: local date
    day: str
    at: float
    #: the last line of history that it told of
    event: int


@dataclass(slots=True)
class Waiting:
    """A message, and whom it has not reached yet (`picwish_watchd.notify.channels.send.mark`)."""

    notice: Notice
    to: list[str]


@dataclass(slots=True)
class Memory:
    """All of it."""

    #: the history is told, or gathered, up to this line
    event: int
    #: by "held/submit_outcome_unknown"
    groups: dict[str, Group] = field(default_factory=dict)
    #: what was told when, within the last hour
    told: dict[str, float] = field(default_factory=dict)
    open: dict[str, Episode] = field(default_factory=dict)
    #: "day", "month" -> the threshold that was told last
    spent: dict[str, str] = field(default_factory=dict)
    #: by time of day
    digests: dict[str, Digested] = field(default_factory=dict)
    waiting: list[Waiting] = field(default_factory=list)


def place_of(journal: Path) -> Path:
    """Where it is kept."""
    return journal.with_name(journal.name + ".notify")


def load(path: Path) -> Memory | None:
    """What was kept; None if there is nothing, or nothing that can be read."""
    try:
        # O_NONBLOCK: a pipe that stands there must keep nobody waiting
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            kept = json.loads(file.read(_LARGEST) or b"")
        memory = Memory(
            event=int(kept["event"]),
            groups={key: Group(**group) for key, group in kept["groups"].items()},
            told={key: float(at) for key, at in kept["told"].items()},
            open={key: Episode(**episode) for key, episode in kept["open"].items()},
            spent={key: str(mark) for key, mark in kept["spent"].items()},
            digests={key: Digested(**digested) for key, digested in kept["digests"].items()},
            waiting=[Waiting(Notice(**each["notice"]), list(each["to"])) for each in kept["waiting"]],
        )
        return memory if _fits(memory, Memory) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _fits(value: object, kind: Any) -> bool:
    """Whether it is, all the way down, what the fields say: else every run would stumble over it anew."""
    parts = get_args(kind)
    if kind is object:
        return True
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return isinstance(value, kind) and all(_fits(getattr(value, name), each) for name, each in hints.items())
    if isinstance(value, Mapping):
        return len(parts) == 2 and all(_fits(name, parts[0]) and _fits(each, parts[1]) for name, each in value.items())
    if isinstance(value, list):
        return len(parts) == 1 and all(_fits(each, parts[0]) for each in value)
    if isinstance(value, int) and not isinstance(value, bool):
        return bool({int, float} & {kind, *parts})
    return type(value) in (parts or (kind,))


def dumped(memory: Memory) -> bytes:
    """What `save` writes."""
    return json.dumps(asdict(memory)).encode("ascii")


def save(path: Path, content: bytes) -> None:
    """Keeps it, whole or not at all, and durably. Raises OSError."""
    fresh = path.with_name(path.name + ".new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    with open(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.rename(fresh, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def forget(path: Path) -> None:
    """Nobody is to be told any more; what happens until somebody is, is no news then."""
    with suppress(OSError):
        os.unlink(path)
