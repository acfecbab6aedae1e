"""What only the event loop knows, as a frozen value that other threads can read."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from picwish_watchd.config.model import Config
from picwish_watchd.pipeline.context import Context
from picwish_watchd.pipeline.gate import Blocked, Gate
from picwish_watchd.pipeline.inboxes import Desks


@dataclass(frozen=True, slots=True)
class Watch:
    """The inbox of a rule."""

    rule: str
    watching: bool
    away: str | None  #: why it cannot be walked
    alive: bool  #: its thread is


@dataclass(frozen=True, slots=True)
class Live:
    """The daemon at a moment."""

    at: float  #: monotonic seconds
    config: Config
    journal: Path  #: the one that is open, whatever the configuration says since
    stopping: bool
    blocked: Blocked | None  #: why nothing is submitted
    watches: tuple[Watch, ...]
    late: tuple[str, ...] = ()  #: loops that should have turned long ago


def look(context: Context, gate: Gate, desks: Desks, late: Iterable[str]) -> Live:
    """The daemon now; to be called in the event loop."""
    watches = tuple(Watch(desk.rule.name, desk.watching, desk.away, desk.watcher.is_alive()) for desk in desks.all())
    now = context.clock.monotonic()
    return Live(now, context.config, context.journal.path, context.stopping, gate.told, watches, tuple(late))
