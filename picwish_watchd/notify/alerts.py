"""What is wrong at the moment, as far as the daemon can see: the closed gate, floods, folders that are away."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

from picwish_watchd.config.notifiers import NotificationEvent
from picwish_watchd.config.schema import Rule
from picwish_watchd.notify.message import tame
from picwish_watchd.outbox.availability import ensure_usable
from picwish_watchd.pipeline.context import PRICES, StepContext
from picwish_watchd.pipeline.gate import CloseReason, Gate
from picwish_watchd.pipeline.inboxes import Inboxes
from picwish_watchd.wording import pluralize, printable_path

# seconds between looks at an outbox
_LOOK = 30.0
# seconds between counts of floods
_COUNT = 10.0
# seconds after which an outbox that does not answer counts as away; a long copy may keep it busy
_SILENT = 300.0

_QUEUE = "Nothing is lost: images wait in the queue, and it goes on by itself once that is mended."
#: Reason -> what is told of it, what to do, how its end is told.
_GATE = {
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
class Trouble:
    """Something that is wrong now. ``key`` is the same for as long as it lasts."""

    key: str
    event: NotificationEvent
    #: begins with a small letter where a sentence may go on with it
    subject: str
    text: str
    #: how its end is told: "PicWish answers again"
    over: str
    facts: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class View:
    """What is wrong, and of what it is known that it is well; of other keys nothing is known yet."""

    troubles: tuple[Trouble, ...]
    well: frozenset[str]
    rules: frozenset[str]


class Lookout:
    """Looks after what takes a while, now and then: floods, and outboxes, each in its own lane (one may hang)."""

    def __init__(self, context: StepContext) -> None:
        self._context = context
        # rule -> the look, and when it began
        self._asked: dict[str, tuple[asyncio.Task[str | None], float]] = {}
        # rule -> what is wrong, and when that was seen
        self._found: dict[str, tuple[str | None, float]] = {}
        self._floods: tuple[dict[str, int], float] = ({}, float("-inf"))

    def floods(self) -> dict[str, int]:
        """Number of images that wait for `approve`, by rule."""
        now = self._context.clock.monotonic()
        if now - self._floods[1] >= _COUNT:
            self._floods = (self._context.journal.flood_counts(), now)
        return self._floods[0]

    def outboxes(self) -> dict[str, str | None]:
        """By rule, why its outbox cannot be used, or None; only those that were looked at."""
        now = self._context.clock.monotonic()
        rules = {rule.name: rule for rule in self._context.config.rules}
        for name in [name for name in self._found if name not in rules]:
            del self._found[name]
        for name, rule in rules.items():
            self._look_at(name, rule, now)
        return {name: reason for name, (reason, _) in self._found.items()}

    def _look_at(self, name: str, rule: Rule, now: float) -> None:
        if name in self._asked:
            call, since = self._asked[name]
            if call.done():
                del self._asked[name]
                error = None if call.cancelled() else call.exception()
                self._found[name] = (call.result() if error is None else str(error), now)
            elif now - since > _SILENT:
                self._found[name] = (f"it has not answered for {(now - since) / 60:.0f} min; does its mount hang?", now)
        elif name not in self._found or now - self._found[name][1] >= _LOOK:
            self._asked[name] = (asyncio.ensure_future(self._reached(rule)), now)

    async def _reached(self, rule: Rule) -> str | None:
        """None also where it was never there: it is made by the first image, or told by that."""
        context = self._context
        if not context.journal.is_known_folder(rule.outbox):
            return None
        away = await context.executor.run(
            f"out:{rule.name}",
            ensure_usable,
            rule.outbox,
            rule.file_mode,
            seen=True,
            mount=context.journal.folder_mount(rule.outbox),
            min_free=context.config.min_free,
        )
        return None if away is None else away.reason

    def close(self) -> None:
        """Asks no more."""
        for call, _ in self._asked.values():
            call.cancel()
        self._asked.clear()


def view_of(context: StepContext, gate: Gate, desks: Inboxes, lookout: Lookout) -> View:
    """How things stand."""
    found = [*_of_gate(gate), *_of_floods(context, lookout.floods())]
    well = {f"blocked:{reason}" for reason in _GATE} | {f"flood:{rule.name}" for rule in context.config.rules}
    for desk in desks.list_active():
        name = desk.rule.name
        if desk.unavailable is not None:
            found.append(_lost("inbox", name, printable_path(desk.rule.inbox), desk.unavailable))
        elif desk.has_scanned:
            well.add(f"inbox:{name}")
    rules = {rule.name: rule for rule in context.config.rules}
    for name, reason in lookout.outboxes().items():
        if reason is not None:
            found.append(_lost("outbox", name, printable_path(rules[name].outbox), reason))
        else:
            well.add(f"outbox:{name}")
    return View(tuple(found), frozenset(well), frozenset(rules))


def _of_gate(gate: Gate) -> Iterator[Trouble]:
    for blocked in gate.closures:
        # the budget has a message of its own
        if blocked.code in _GATE:
            subject, advice, over = _GATE[blocked.code]
            text = f"{_sentence(subject)}\n{_sentence(tame(blocked.message))}\n{_QUEUE}\n{advice}"
            facts: dict[str, object] = {"code": str(blocked.code)}
            yield Trouble(f"blocked:{blocked.code}", NotificationEvent.BLOCKED, subject, text, over, facts)


def _of_floods(context: StepContext, floods: dict[str, int]) -> Iterator[Trouble]:
    rules = {rule.name: rule for rule in context.config.rules}
    for name, images in floods.items():
        if name not in rules:
            continue
        credits = images * PRICES[rules[name].type]
        subject = f"a flood of images came to rule {name}, and waits for your word"
        text = (
            f"{_sentence(subject)}\nbudget.burst holds {pluralize(images, 'image')}, which would cost {credits:,} "
            f"credits; other rules go on.\n`picwish-watchd approve {name}` lets them go; images that should not be "
            "bought can be taken out of the inbox."
        )
        facts: dict[str, object] = {"code": "burst", "rule": name, "count": images, "credits": credits}
        yield Trouble(
            f"flood:{name}", NotificationEvent.BLOCKED, subject, text, f"The flood of rule {name} is over", facts
        )


def _lost(kind: str, rule: str, path: str, reason: str) -> Trouble:
    subject = f"the {kind} of rule {rule} cannot be used"
    reason = tame(reason).replace("approve RULE", f"approve {rule}")
    lost = (
        "New images in it are not seen until it is back; none is forgotten."
        if kind == "inbox"
        else "Nothing is bought for it meanwhile, and what was paid for is kept until it is back."
    )
    text = (
        f"{_sentence(subject)}\n{path}: {reason}\n{lost}\n"
        f"Mount it again, or see what is wrong with it; `picwish-watchd status` and `picwish-watchd check` tell more."
    )
    facts: dict[str, object] = {"folder": kind, "rule": rule, "path": path}
    return Trouble(
        f"{kind}:{rule}", NotificationEvent.ROOT_LOST, subject, text, f"The {kind} of rule {rule} is back", facts
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
