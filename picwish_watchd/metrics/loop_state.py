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
    """The state of the inbox of a rule."""

    rule: str
    is_watching: bool
    #: Why it cannot be scanned; None if it can.
    unavailable: str | None
    #: Whether the thread that watches it runs.
    is_alive: bool


@dataclass(frozen=True, slots=True)
class LoopState:
    """The state of the daemon at one moment."""

    #: Monotonic seconds.
    captured_at: float
    config: Config
    #: The journal that is open. The configuration may name another one since.
    journal: Path
    stopping: bool
    #: Why nothing is submitted; None while the gate is open.
    gate_closure: GateClosure | None
    inboxes: tuple[InboxState, ...]
    #: Loops that missed their heartbeat.
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
