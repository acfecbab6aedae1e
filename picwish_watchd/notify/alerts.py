"""Find what is wrong at the moment: a closed gate, floods, inboxes and outboxes that cannot be used."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from picwish_watchd.clock import Clock
from picwish_watchd.config.model import Config
from picwish_watchd.config.notifiers import NotificationEvent
from picwish_watchd.config.schema import Rule
from picwish_watchd.fs.mounts import AcceptedMount
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.notify.message import sanitize_message
from picwish_watchd.outbox.availability import describe_hang, find_write_problem
from picwish_watchd.pipeline.gate import CloseReason, Gate
from picwish_watchd.pipeline.inboxes import Inboxes
from picwish_watchd.pricing import PRICES
from picwish_watchd.runtime.keyed_executor import KeyedExecutor
from picwish_watchd.runtime.worker_key import WorkerKey
from picwish_watchd.wording import pluralize, printable_path

# Seconds between checks of an outbox.
_OUTBOX_CHECK_INTERVAL = 30.0
# Seconds between counts of floods.
_FLOOD_COUNT_INTERVAL = 10.0
# Seconds after which an outbox that does not answer counts as unavailable; a long copy may keep it busy.
_SILENCE_TIMEOUT = 300.0

_QUEUE_NOTE = "Nothing is lost: images wait in the queue and continue automatically once this is fixed."
#: Reason why the gate is closed -> subject, advice, subject of the recovery.
_GATE_TEXTS = {
    CloseReason.UNAUTHORIZED: (
        "PicWish refuses the key; nothing is being sent",
        "Put the right key where the daemon reads it (see `picwish-watchd check`), then reload the daemon.",
        "PicWish accepts the key again",
    ),
    CloseReason.API_DOWN: (
        "PicWish does not answer; nothing is being sent",
        "If this machine can reach other sites, there is nothing to do but wait: the daemon asks PicWish again and "
        "again, at no cost.",
        "PicWish answers again",
    ),
    CloseReason.RESULTS_UNREACHABLE: (
        "results cannot be downloaded; nothing more is submitted",
        "Check whether this machine, its proxy and its firewall allow downloads from PicWish's storage.",
        "Results can be downloaded again",
    ),
    CloseReason.SPOOL: (
        "results cannot be stored on this machine; nothing more is submitted",
        "Free space on the disk of the journal, or find out why it cannot be written to.",
        "Results can be stored again",
    ),
}


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that is wrong now. ``key`` stays the same for as long as it lasts."""

    key: str
    event: NotificationEvent
    #: Begins with a small letter where it can continue a sentence.
    subject: str
    text: str
    #: Subject of the message at its end, such as "PicWish answers again".
    recovery_text: str
    facts: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AlertView:
    """All alerts of a moment, and the keys that were checked and are healthy. Other keys are not known yet."""

    alerts: tuple[Alert, ...]
    healthy_keys: frozenset[str]
    rule_names: frozenset[str]


class AlertProbes:
    """Checks that take a while and run now and then: counts of floods, and outboxes in a thread each.

    An outbox is checked under the executor's key of that outbox, so a mount that hangs blocks no other.
    """

    def __init__(self, journal: JournalReader, clock: Clock, executor: KeyedExecutor) -> None:
        self._journal = journal
        self._clock = clock
        self._executor = executor
        # Rule -> the running check, and when it began (monotonic seconds).
        self._running_checks: dict[str, tuple[asyncio.Task[str | None], float]] = {}
        # Rule -> what is wrong, and when that was found (monotonic seconds).
        self._outbox_results: dict[str, tuple[str | None, float]] = {}
        self._flood_cache: tuple[dict[str, int], float] = ({}, float("-inf"))

    def flood_counts(self) -> dict[str, int]:
        """Return the number of images that wait for `approve`, by rule; at most 10 s old."""
        now = self._clock.monotonic()
        if now - self._flood_cache[1] >= _FLOOD_COUNT_INTERVAL:
            self._flood_cache = (self._journal.flood_counts(), now)
        return self._flood_cache[0]

    def outbox_errors(self, config: Config) -> dict[str, str | None]:
        """Return by rule why its outbox cannot be used, or None if it can; rules not checked yet are left out."""
        now = self._clock.monotonic()
        rules = {rule.name: rule for rule in config.rules}
        for name in [name for name in self._outbox_results if name not in rules]:
            del self._outbox_results[name]
        for name, rule in rules.items():
            self._poll_outbox(name, rule, config.min_free, now)
        return {name: reason for name, (reason, _) in self._outbox_results.items()}

    def _poll_outbox(self, name: str, rule: Rule, min_free: int, now: float) -> None:
        if name in self._running_checks:
            check, since = self._running_checks[name]
            if check.done():
                del self._running_checks[name]
                error = None if check.cancelled() else check.exception()
                self._outbox_results[name] = (check.result() if error is None else str(error), now)
            elif now - since > _SILENCE_TIMEOUT:
                self._outbox_results[name] = (describe_hang(now - since), now)
        elif name not in self._outbox_results or now - self._outbox_results[name][1] >= _OUTBOX_CHECK_INTERVAL:
            self._running_checks[name] = (asyncio.ensure_future(self._check_outbox(rule, min_free)), now)

    async def _check_outbox(self, rule: Rule, min_free: int) -> str | None:
        """Return why the outbox of ``rule`` cannot be used, or None.

        None also if it never existed: the first image makes it, or reports why it cannot.
        """
        if not self._journal.is_known_folder(rule.outbox):
            return None
        problem = await self._executor.run(
            WorkerKey.outbox(rule.name),
            find_write_problem,
            rule.outbox,
            AcceptedMount(rule.name, self._journal.folder_mount(rule.outbox)),
            seen=True,
            min_free=min_free,
        )
        return None if problem is None else problem.reason

    def close(self) -> None:
        """Cancel the running checks."""
        for check, _ in self._running_checks.values():
            check.cancel()
        self._running_checks.clear()


def collect_alerts(config: Config, gate: Gate, inboxes: Inboxes, probes: AlertProbes) -> AlertView:
    """Collect everything that is wrong now, from the gate, the inboxes and the probes."""
    rules = {rule.name: rule for rule in config.rules}
    alerts = [*_iter_gate_alerts(gate), *_iter_flood_alerts(rules, probes.flood_counts())]
    healthy = {f"blocked:{reason}" for reason in _GATE_TEXTS} | {f"flood:{name}" for name in rules}
    for inbox in inboxes.list_active():
        name = inbox.rule.name
        if inbox.unavailable is not None:
            alerts.append(_build_folder_alert("inbox", name, printable_path(inbox.rule.inbox), inbox.unavailable))
        elif inbox.has_scanned:
            healthy.add(f"inbox:{name}")
    for name, reason in probes.outbox_errors(config).items():
        if reason is not None:
            alerts.append(_build_folder_alert("outbox", name, printable_path(rules[name].outbox), reason))
        else:
            healthy.add(f"outbox:{name}")
    return AlertView(tuple(alerts), frozenset(healthy), frozenset(rules))


def _iter_gate_alerts(gate: Gate) -> Iterator[Alert]:
    for closure in gate.closures:
        # The budget has messages of its own.
        if closure.code not in _GATE_TEXTS:
            continue
        subject, advice, recovery_text = _GATE_TEXTS[closure.code]
        reason = _to_sentence(sanitize_message(closure.message))
        text = f"{_to_sentence(subject)}\n{reason}\n{_QUEUE_NOTE}\n{advice}"
        facts: dict[str, object] = {"code": str(closure.code)}
        yield Alert(f"blocked:{closure.code}", NotificationEvent.BLOCKED, subject, text, recovery_text, facts)


def _iter_flood_alerts(rules: Mapping[str, Rule], floods: Mapping[str, int]) -> Iterator[Alert]:
    for name, images in floods.items():
        if name not in rules:
            continue
        credits = images * PRICES[rules[name].type]
        subject = f"a flood of images arrived in rule {name} and waits for your approval"
        text = (
            f"{_to_sentence(subject)}\nbudget.burst holds {pluralize(images, 'image')}, which would cost {credits:,} "
            f"credits; other rules continue.\n`picwish-watchd approve {name}` releases them. Move images that should "
            "not be submitted out of the inbox first."
        )
        facts: dict[str, object] = {"code": "burst", "rule": name, "count": images, "credits": credits}
        recovery_text = f"The flood of rule {name} is over"
        yield Alert(f"flood:{name}", NotificationEvent.BLOCKED, subject, text, recovery_text, facts)


def _build_folder_alert(kind: str, rule: str, path: str, reason: str) -> Alert:
    subject = f"the {kind} of rule {rule} cannot be used"
    reason = sanitize_message(reason)
    effect = (
        "New images in it are not seen until it is back; none is forgotten."
        if kind == "inbox"
        else "Nothing is submitted for it meanwhile, and paid results are kept until it is back."
    )
    text = (
        f"{_to_sentence(subject)}\n{path}: {reason}\n{effect}\n"
        "Mount it again, or find out what is wrong with it; `picwish-watchd status` and `picwish-watchd check` show "
        "more."
    )
    facts: dict[str, object] = {"folder": kind, "rule": rule, "path": path}
    recovery_text = f"The {kind} of rule {rule} is back"
    return Alert(f"{kind}:{rule}", NotificationEvent.ROOT_LOST, subject, text, recovery_text, facts)


def _to_sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
