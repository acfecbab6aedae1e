"""Can work progress? Pure: what was found in, an answer with reasons out."""

from collections.abc import Iterator
from dataclasses import dataclass

from picwish_watchd import __version__
from picwish_watchd.metrics.loop_state import Live
from picwish_watchd.metrics.probes import Obstacles
from picwish_watchd.pipeline.gate import CloseReason as Closed
from picwish_watchd.wording import pluralize

#: A turn of the event loop may wait 5 s for the journal's lock, and it tells of itself once a second.
_SILENCE = 15.0
#: Seconds beyond its own word after which a loop counts as late: what systemd's watchdog looks at too, told sooner.
STEPS_LATE = 15.0


@dataclass(frozen=True, slots=True)
class Reason:
    """Something that stands in the way: what was looked at, a word for scripts and a sentence for people."""

    check: str
    code: str
    message: str
    #: None: it concerns all rules
    rule: str | None = None

    def told(self) -> dict[str, str]:
        """As it stands in the answer."""
        return {"code": self.code, **({"rule": self.rule} if self.rule else {}), "message": self.message}


#: All that is looked at, in the order in which it is told.
CHECKS = ("loop", "steps", "journal", "gate", "budget", "inboxes", "watchers", "outboxes", "spool", "floods")


def starting() -> list[Reason]:
    """Before the event loop has turned."""
    return [Reason("loop", "starting", "the daemon is starting")]


def reasons(live: Live, silence: float, obstacles: Obstacles) -> list[Reason]:
    """All that stands in the way; ``silence`` is how long (seconds) ago the event loop told ``live``."""
    return [*_of_the_loop(live, silence), *_of_all(live, obstacles), *_of_rules(live, obstacles)]


def answer(found: list[Reason]) -> dict[str, object]:
    """What is told as JSON."""
    failed = {reason.check for reason in found}
    return {
        "status": "blocked" if found else "ok",
        "version": __version__,
        "checks": {check: check not in failed for check in CHECKS},
        "reasons": [reason.told() for reason in found],
    }


def _of_the_loop(live: Live, silence: float) -> Iterator[Reason]:
    if silence > _SILENCE:
        yield Reason("loop", "stuck", f"the daemon has not turned for {silence:.0f} s")
    if live.stopping:
        yield Reason("loop", "stopping", "the daemon is stopping")
    elif live.late:
        yield Reason("steps", "late", f"no progress: {', '.join(live.late)}")


def _of_all(live: Live, obstacles: Obstacles) -> Iterator[Reason]:
    if obstacles.journal is not None:
        yield Reason("journal", "journal", obstacles.journal)
    if live.blocked is not None and live.blocked.code is not Closed.BUDGET:
        yield Reason("gate", live.blocked.code.value, f"nothing is submitted: {live.blocked.message}")
    short = obstacles.shortage
    if short is None and live.blocked is not None and live.blocked.code is Closed.BUDGET:
        short = live.blocked.message
    if short is not None:
        yield Reason("budget", "budget", short)
    if obstacles.spool is not None:
        yield Reason("spool", "spool", f"results cannot be kept: {obstacles.spool}")


def _of_rules(live: Live, obstacles: Obstacles) -> Iterator[Reason]:
    for watch in live.watches:
        if watch.away is not None:
            yield Reason("inboxes", "inbox_away", watch.away, watch.rule)
        elif not watch.watching:
            yield Reason("inboxes", "inbox_not_walked", "its inbox has not been walked yet", watch.rule)
        if not watch.alive:
            yield Reason("watchers", "watcher_dead", "the thread that watches its inbox has ended", watch.rule)
    for rule, trouble in obstacles.outboxes.items():
        yield Reason("outboxes", "outbox_away", trouble, rule)
    for rule, images in obstacles.floods.items():
        what = f"{pluralize(images, 'image')} {'waits' if images == 1 else 'wait'} for `picwish-watchd approve {rule}`"
        yield Reason("floods", "burst", what, rule)
