"""Decide whether work can continue. Nothing is read or asked here: findings go in, problems come out."""

from collections.abc import Iterator
from dataclasses import dataclass

from picwish_watchd import __version__
from picwish_watchd.metrics.loop_state import LoopState
from picwish_watchd.metrics.probes import HealthFindings
from picwish_watchd.pipeline.gate import CloseReason
from picwish_watchd.wording import pluralize

# Seconds. The event loop updates its state once a second, and may wait 5 s for the journal's lock.
_MAX_SILENCE = 15.0
#: Seconds beyond a loop's own limit after which it counts as late. Systemd's watchdog checks the same, later.
STEP_OVERDUE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class HealthProblem:
    """Something that stops work: the check that found it, a code for scripts and a sentence for people."""

    check: str
    code: str
    message: str
    #: None if it concerns all rules
    rule: str | None = None

    def to_json(self) -> dict[str, str]:
        """Return the problem as it appears in ``reasons`` of the health report."""
        return {"code": self.code, **({"rule": self.rule} if self.rule else {}), "message": self.message}


#: All checks, in the order of the report.
HEALTH_CHECKS = ("loop", "steps", "journal", "gate", "budget", "inboxes", "watchers", "outboxes", "spool", "floods")


def startup_problems() -> list[HealthProblem]:
    """Return the problems before the event loop runs: the daemon is starting."""
    return [HealthProblem("loop", "starting", "the daemon is starting")]


def find_health_problems(loop_state: LoopState, silence: float, findings: HealthFindings) -> list[HealthProblem]:
    """Return everything that stops work. ``silence`` is the age of ``loop_state`` in seconds."""
    return [
        *_check_loop(loop_state, silence),
        *_check_daemon(loop_state, findings),
        *_check_rules(loop_state, findings),
    ]


def build_health_report(problems: list[HealthProblem]) -> dict[str, object]:
    """Return the body of the answer to ``/healthz`` as plain values."""
    failed = {problem.check for problem in problems}
    return {
        "status": "blocked" if problems else "ok",
        "version": __version__,
        "checks": {check: check not in failed for check in HEALTH_CHECKS},
        "reasons": [problem.to_json() for problem in problems],
    }


def _check_loop(loop_state: LoopState, silence: float) -> Iterator[HealthProblem]:
    if silence > _MAX_SILENCE:
        yield HealthProblem("loop", "stuck", f"the daemon's main loop has not run for {silence:.0f} s")
    if loop_state.stopping:
        yield HealthProblem("loop", "stopping", "the daemon is stopping")
    elif loop_state.overdue_loops:
        yield HealthProblem("steps", "late", f"no progress: {', '.join(loop_state.overdue_loops)}")


def _check_daemon(loop_state: LoopState, findings: HealthFindings) -> Iterator[HealthProblem]:
    if findings.journal_error is not None:
        yield HealthProblem("journal", "journal", findings.journal_error)
    closure, shortage = loop_state.gate_closure, findings.budget_shortage
    if closure is not None and closure.code is not CloseReason.BUDGET:
        yield HealthProblem("gate", closure.code.value, f"nothing is submitted: {closure.message}")
    elif shortage is None and closure is not None:
        shortage = closure.message
    if shortage is not None:
        yield HealthProblem("budget", "budget", shortage)
    if findings.spool_error is not None:
        yield HealthProblem("spool", "spool", f"results cannot be stored: {findings.spool_error}")


def _check_rules(loop_state: LoopState, findings: HealthFindings) -> Iterator[HealthProblem]:
    for inbox in loop_state.inboxes:
        if inbox.unavailable is not None:
            yield HealthProblem("inboxes", "inbox_away", inbox.unavailable, inbox.rule)
        elif not inbox.is_watching:
            yield HealthProblem("inboxes", "inbox_not_walked", "its inbox has not been scanned yet", inbox.rule)
        if not inbox.is_alive:
            yield HealthProblem("watchers", "watcher_dead", "the thread that watches its inbox has ended", inbox.rule)
    for rule, reason in findings.outbox_errors.items():
        yield HealthProblem("outboxes", "outbox_away", reason, rule)
    for rule, images in findings.flood_counts.items():
        verb = "waits" if images == 1 else "wait"
        text = f"{pluralize(images, 'image')} {verb} for `picwish-watchd approve {rule}`"
        yield HealthProblem("floods", "burst", text, rule)
