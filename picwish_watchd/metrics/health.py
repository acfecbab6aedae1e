"""Can work progress? Pure: what was found in, an answer with reasons out."""

from collections.abc import Iterator
from dataclasses import dataclass

from picwish_watchd import __version__
from picwish_watchd.metrics.loop_state import LoopState
from picwish_watchd.metrics.probes import HealthFindings
from picwish_watchd.pipeline.gate import CloseReason as Closed
from picwish_watchd.wording import pluralize

#: A turn of the event loop may wait 5 s for the journal's lock, and it tells of itself once a second.
_MAX_SILENCE = 15.0
#: Seconds beyond its own word after which a loop counts as late: what systemd's watchdog looks at too, told sooner.
STEP_OVERDUE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class HealthProblem:
    """Something that stands in the way: what was looked at, a word for scripts and a sentence for people."""

    check: str
    code: str
    message: str
    #: None: it concerns all rules
    rule: str | None = None

    def to_json(self) -> dict[str, str]:
        """As it stands in the answer."""
        return {"code": self.code, **({"rule": self.rule} if self.rule else {}), "message": self.message}


#: All that is looked at, in the order in which it is told.
HEALTH_CHECKS = ("loop", "steps", "journal", "gate", "budget", "inboxes", "watchers", "outboxes", "spool", "floods")


def startup_problems() -> list[HealthProblem]:
    """Before the event loop has turned."""
    return [HealthProblem("loop", "starting", "the daemon is starting")]


def find_health_problems(live: LoopState, silence: float, obstacles: HealthFindings) -> list[HealthProblem]:
    """All that stands in the way; ``silence`` is how long (seconds) ago the event loop told ``live``."""
    return [*_check_loop(live, silence), *_check_daemon(live, obstacles), *_check_rules(live, obstacles)]


def build_health_report(found: list[HealthProblem]) -> dict[str, object]:
    """What is told as JSON."""
    failed = {reason.check for reason in found}
    return {
        "status": "blocked" if found else "ok",
        "version": __version__,
        "checks": {check: check not in failed for check in HEALTH_CHECKS},
        "reasons": [reason.to_json() for reason in found],
    }


def _check_loop(live: LoopState, silence: float) -> Iterator[HealthProblem]:
    if silence > _MAX_SILENCE:
        yield HealthProblem("loop", "stuck", f"the daemon has not turned for {silence:.0f} s")
    if live.stopping:
        yield HealthProblem("loop", "stopping", "the daemon is stopping")
    elif live.overdue_loops:
        yield HealthProblem("steps", "late", f"no progress: {', '.join(live.overdue_loops)}")


def _check_daemon(live: LoopState, obstacles: HealthFindings) -> Iterator[HealthProblem]:
    if obstacles.journal_error is not None:
        yield HealthProblem("journal", "journal", obstacles.journal_error)
    if live.gate_closure is not None and live.gate_closure.code is not Closed.BUDGET:
        yield HealthProblem("gate", live.gate_closure.code.value, f"nothing is submitted: {live.gate_closure.message}")
    short = obstacles.budget_shortage
    if short is None and live.gate_closure is not None and live.gate_closure.code is Closed.BUDGET:
        short = live.gate_closure.message
    if short is not None:
        yield HealthProblem("budget", "budget", short)
    if obstacles.spool_error is not None:
        yield HealthProblem("spool", "spool", f"results cannot be kept: {obstacles.spool_error}")


def _check_rules(live: LoopState, obstacles: HealthFindings) -> Iterator[HealthProblem]:
    for watch in live.inboxes:
        if watch.unavailable is not None:
            yield HealthProblem("inboxes", "inbox_away", watch.unavailable, watch.rule)
        elif not watch.is_watching:
            yield HealthProblem("inboxes", "inbox_not_walked", "its inbox has not been walked yet", watch.rule)
        if not watch.is_alive:
            yield HealthProblem("watchers", "watcher_dead", "the thread that watches its inbox has ended", watch.rule)
    for rule, trouble in obstacles.outbox_errors.items():
        yield HealthProblem("outboxes", "outbox_away", trouble, rule)
    for rule, images in obstacles.flood_counts.items():
        what = f"{pluralize(images, 'image')} {'waits' if images == 1 else 'wait'} for `picwish-watchd approve {rule}`"
        yield HealthProblem("floods", "burst", what, rule)
