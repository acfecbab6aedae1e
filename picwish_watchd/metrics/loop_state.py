"""What only the event loop knows, as a frozen value that other threads can read."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from picwish_watchd.config.model import Config
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pipeline.gate import Gate, GateClosure
from picwish_watchd.pipeline.inboxes import Inboxes


@dataclass(frozen=True, slots=True)
class Watch:
    """The inbox of a rule."""

    rule: str
    watching: bool
    #: why it cannot be walked
    away: str | None
    #: its thread is
    alive: bool


@dataclass(frozen=True, slots=True)
class Live:
    """The daemon at a moment."""

    #: monotonic seconds
    at: float
    config: Config
    #: the one that is open, whatever the configuration says since
    journal: Path
    stopping: bool
    #: why nothing is submitted
    blocked: GateClosure | None
    watches: tuple[Watch, ...]
    #: loops that should have turned long ago
    late: tuple[str, ...] = ()


def look(context: StepContext, gate: Gate, desks: Inboxes, late: Iterable[str]) -> Live:
    """The daemon now; to be called in the event loop."""
    watches = tuple(
        Watch(desk.rule.name, desk.is_watching, desk.unavailable, desk.watcher.is_alive())
        for desk in desks.list_active()
    )
    now = context.clock.monotonic()
    return Live(
        now, context.config, context.journal.path, context.stopping, gate.why_not_submitting, watches, tuple(late)
    )
