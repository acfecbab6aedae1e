"""What only the event loop knows, as a frozen value that other threads can read."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from picwish_watchd.config.model import Config
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pipeline.gate import Gate, GateClosure
from picwish_watchd.pipeline.inboxes import Inboxes


@dataclass(frozen=True, slots=True)
class InboxState:
    """The inbox of a rule."""

    rule: str
    is_watching: bool
    #: why it cannot be walked
    unavailable: str | None
    #: its thread is
    is_alive: bool


@dataclass(frozen=True, slots=True)
class LoopState:
    """The daemon at a moment."""

    #: monotonic seconds
    captured_at: float
    config: Config
    #: the one that is open, whatever the configuration says since
    journal: Path
    stopping: bool
    #: why nothing is submitted
    gate_closure: GateClosure | None
    inboxes: tuple[InboxState, ...]
    #: loops that should have turned long ago
    overdue_loops: tuple[str, ...] = ()


def capture_loop_state(context: StepContext, gate: Gate, desks: Inboxes, late: Iterable[str]) -> LoopState:
    """The daemon now; to be called in the event loop."""
    watches = tuple(
        InboxState(desk.rule.name, desk.is_watching, desk.unavailable, desk.watcher.is_alive())
        for desk in desks.list_active()
    )
    now = context.clock.monotonic()
    return LoopState(
        now, context.config, context.journal.path, context.stopping, gate.why_not_submitting, watches, tuple(late)
    )
