"""What is wrong at the moment, as far as the daemon can see: the closed gate, floods, folders that are away."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

from picwish_watchd.config.notifiers import NotificationEvent
from picwish_watchd.config.schema import Rule
from picwish_watchd.notify.message import sanitize_message
from picwish_watchd.outbox.availability import describe_hang, find_write_problem
from picwish_watchd.pipeline.context import PRICES, StepContext
from picwish_watchd.pipeline.gate import CloseReason, Gate
from picwish_watchd.pipeline.inboxes import Inboxes
from picwish_watchd.runtime.worker_key import WorkerKey
from picwish_watchd.wording import pluralize, printable_path

# seconds between looks at an outbox
_OUTBOX_CHECK_INTERVAL = 30.0
# seconds between counts of floods
_FLOOD_COUNT_INTERVAL = 10.0
# seconds after which an outbox that does not answer counts as away; a long copy may keep it busy
_SILENCE_TIMEOUT = 300.0

_QUEUE_NOTE = "Nothing is lost: images wait in the queue, and it goes on by itself once that is mended."
#: Reason -> what is told of it, what to do, how its end is told.
_GATE_TEXTS = {
    CloseReason.UNAUTHORIZED: (
        "PicWish refuses the key; nothing is being sent",
        "Put the right key where the daemon reads it (see `picwish-watchd check`), then reload the daemon.",
        "PicWish takes the key again",
    ),
    CloseReason.API_DOWN: (
        "PicWish does not answer; nothing is being sent",
        "If other sites can be reached from this machine, there is nothing to do but to wait: PicWish is asked again "
        "and again, at no cost.",
        "PicWish answers again",
    ),
    CloseReason.RESULTS_UNREACHABLE: (
        "results cannot be downloaded; nothing more is bought",
        "See whether this machine, its proxy or its firewall lets downloads from PicWish's storage through.",
        "Results can be downloaded again",
    ),
    CloseReason.SPOOL: (
        "results cannot be kept on this machine; nothing more is bought",
        "Make room on the disk of the journal, or see why it cannot be written to.",
        "Results can be kept again",
    ),
}


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that is wrong now. ``key`` is the same for as long as it lasts."""

    key: str
    event: NotificationEvent
    #: begins with a small letter where a sentence may go on with it
    subject: str
    text: str
    #: how its end is told: "PicWish answers again"
    recovery_text: str
    facts: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AlertView:
    """What is wrong, and of what it is known that it is well; of other keys nothing is known yet."""

    alerts: tuple[Alert, ...]
    healthy_keys: frozenset[str]
    rule_names: frozenset[str]


class AlertProbes:
    """Looks after what takes a while, now and then: floods, and outboxes, each in its own lane (one may hang)."""

    def __init__(self, context: StepContext) -> None:
        self._context = context
        # rule -> the look, and when it began
        self._running_checks: dict[str, tuple[asyncio.Task[str | None], float]] = {}
        # rule -> what is wrong, and when that was seen
        self._outbox_results: dict[str, tuple[str | None, float]] = {}
        self._flood_cache: tuple[dict[str, int], float] = ({}, float("-inf"))

    def flood_counts(self) -> dict[str, int]:
        """Number of images that wait for `approve`, by rule."""
        now = self._context.clock.monotonic()
        if now - self._flood_cache[1] >= _FLOOD_COUNT_INTERVAL:
            self._flood_cache = (self._context.journal.flood_counts(), now)
        return self._flood_cache[0]

    def outbox_errors(self) -> dict[str, str | None]:
        """By rule, why its outbox cannot be used, or None; only those that were looked at."""
        now = self._context.clock.monotonic()
        rules = {rule.name: rule for rule in self._context.config.rules}
        for name in [name for name in self._outbox_results if name not in rules]:
            del self._outbox_results[name]
        for name, rule in rules.items():
            self._poll_outbox(name, rule, now)
        return {name: reason for name, (reason, _) in self._outbox_results.items()}

    def _poll_outbox(self, name: str, rule: Rule, now: float) -> None:
        if name in self._running_checks:
            call, since = self._running_checks[name]
            if call.done():
                del self._running_checks[name]
                error = None if call.cancelled() else call.exception()
                self._outbox_results[name] = (call.result() if error is None else str(error), now)
            elif now - since > _SILENCE_TIMEOUT:
                self._outbox_results[name] = (describe_hang(now - since), now)
        elif name not in self._outbox_results or now - self._outbox_results[name][1] >= _OUTBOX_CHECK_INTERVAL:
            self._running_checks[name] = (asyncio.ensure_future(self._check_outbox(rule)), now)

    async def _check_outbox(self, rule: Rule) -> str | None:
        """None also where it was never there: it is made by the first image, or told by that."""
        context = self._context
        if not context.journal.is_known_folder(rule.outbox):
            return None
        away = await context.executor.run(
            WorkerKey.outbox(rule.name),
            find_write_problem,
            rule.outbox,
            context.accepted_mount(rule.name, rule.outbox),
            seen=True,
            min_free=context.config.min_free,
        )
        return None if away is None else away.reason

    def close(self) -> None:
        """Asks no more."""
        for call, _ in self._running_checks.values():
            call.cancel()
        self._running_checks.clear()


def collect_alerts(context: StepContext, gate: Gate, desks: Inboxes, lookout: AlertProbes) -> AlertView:
    """How things stand."""
    found = [*_iter_gate_alerts(gate), *_iter_flood_alerts(context, lookout.flood_counts())]
    well = {f"blocked:{reason}" for reason in _GATE_TEXTS} | {f"flood:{rule.name}" for rule in context.config.rules}
    for desk in desks.list_active():
        name = desk.rule.name
        if desk.unavailable is not None:
            found.append(_build_folder_alert("inbox", name, printable_path(desk.rule.inbox), desk.unavailable))
        elif desk.has_scanned:
            well.add(f"inbox:{name}")
    rules = {rule.name: rule for rule in context.config.rules}
    for name, reason in lookout.outbox_errors().items():
        if reason is not None:
            found.append(_build_folder_alert("outbox", name, printable_path(rules[name].outbox), reason))
        else:
            well.add(f"outbox:{name}")
    return AlertView(tuple(found), frozenset(well), frozenset(rules))


def _iter_gate_alerts(gate: Gate) -> Iterator[Alert]:
    for blocked in gate.closures:
        # the budget has a message of its own
        if blocked.code in _GATE_TEXTS:
            subject, advice, over = _GATE_TEXTS[blocked.code]
            text = (
                f"{_to_sentence(subject)}\n{_to_sentence(sanitize_message(blocked.message))}\n{_QUEUE_NOTE}\n{advice}"
            )
            facts: dict[str, object] = {"code": str(blocked.code)}
            yield Alert(f"blocked:{blocked.code}", NotificationEvent.BLOCKED, subject, text, over, facts)


def _iter_flood_alerts(context: StepContext, floods: dict[str, int]) -> Iterator[Alert]:
    rules = {rule.name: rule for rule in context.config.rules}
    for name, images in floods.items():
        if name not in rules:
            continue
        credits = images * PRICES[rules[name].type]
        subject = f"a flood of images came to rule {name}, and waits for your word"
        text = (
            f"{_to_sentence(subject)}\nbudget.burst holds {pluralize(images, 'image')}, which would cost {credits:,} "
            f"credits; other rules go on.\n`picwish-watchd approve {name}` lets them go; images that should not be "
            "bought can be taken out of the inbox."
        )
        facts: dict[str, object] = {"code": "burst", "rule": name, "count": images, "credits": credits}
        yield Alert(
            f"flood:{name}", NotificationEvent.BLOCKED, subject, text, f"The flood of rule {name} is over", facts
        )


def _build_folder_alert(kind: str, rule: str, path: str, reason: str) -> Alert:
    subject = f"the {kind} of rule {rule} cannot be used"
    reason = sanitize_message(reason)
    lost = (
        "New images in it are not seen until it is back; none is forgotten."
        if kind == "inbox"
        else "Nothing is bought for it meanwhile, and what was paid for is kept until it is back."
    )
    text = (
        f"{_to_sentence(subject)}\n{path}: {reason}\n{lost}\n"
        f"Mount it again, or see what is wrong with it; `picwish-watchd status` and `picwish-watchd check` tell more."
    )
    facts: dict[str, object] = {"folder": kind, "rule": rule, "path": path}
    return Alert(
        f"{kind}:{rule}", NotificationEvent.ROOT_LOST, subject, text, f"The {kind} of rule {rule} is back", facts
    )


def _to_sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
