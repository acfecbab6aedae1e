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
    #: why it cannot be scanned
    unavailable: str | None
    #: whether the thread that watches it runs
    is_alive: bool


@dataclass(frozen=True, slots=True)
class LoopState:
    """The daemon at a moment."""

    #: monotonic seconds
    captured_at: float
    config: Config
    #: the journal that is open, even if the configuration names another one since
    journal: Path
    stopping: bool
    #: why nothing is submitted
    gate_closure: GateClosure | None
    inboxes: tuple[InboxState, ...]
    #: loops that missed their heartbeat
    overdue_loops: tuple[str, ...] = ()


def capture_loop_state(context: StepContext, gate: Gate, inboxes: Inboxes, overdue_loops: Iterable[str]) -> LoopState:
    """Return the state of the daemon now. To be called in the event loop."""
    return LoopState(
        captured_at=context.clock.monotonic(),
        config=context.config,
        journal=context.journal.path,
        stopping=context.stopping,
        gate_closure=gate.why_not_submitting,
        inboxes=tuple(
            InboxState(inbox.rule.name, inbox.is_watching, inbox.unavailable, inbox.watcher.is_alive())
            for inbox in inboxes.list_active()
        ),
        overdue_loops=tuple(overdue_loops),
    )
