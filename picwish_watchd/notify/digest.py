"""Report once a day what was done, what it cost and what is wrong."""

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from picwish_watchd.clock import day_start, month_start
from picwish_watchd.config.notifiers import NotificationEvent
from picwish_watchd.config.schema import Budget
from picwish_watchd.job import State
from picwish_watchd.journal.ended_jobs import count_ended_since
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.notify.alerts import Alert
from picwish_watchd.notify.message import Message
from picwish_watchd.notify.state_file import DigestState, NotifyState
from picwish_watchd.wording import pluralize

_STATE_WORDS = {State.DONE: "done", State.FAILED: "failed", State.HELD: "held", State.REJECTED: "rejected"}


@dataclass(frozen=True, slots=True)
class Digest:
    """The digest for one time of day. ``is_empty``: nothing happened and nothing is wrong."""

    time_of_day: str
    message: Message
    is_empty: bool


def pop_due_digests(
    state: NotifyState,
    journal: JournalReader,
    times: Collection[str],
    budget: Budget,
    alerts: Sequence[Alert],
    now: float,
) -> Iterator[Digest]:
    """Yield the digests of those ``times`` ("08:00", local) that have come, each once a day, and mark them as sent.

    A digest that was missed is made later on the same day and covers the time since the last one. The first digest of
    a time of day covers the time since its notifier was configured.
    """
    for removed in state.digests.keys() - set(times):
        del state.digests[removed]
    local = time.localtime(now)
    today, clock = time.strftime("%Y-%m-%d", local), time.strftime("%H:%M", local)
    for at in times:
        last = state.digests.get(at)
        if last is None:
            day = today if clock >= at else ""
            state.digests[at] = DigestState(day, now, journal.last_event_id())
        elif last.day != today and clock >= at:
            state.digests[at] = DigestState(today, now, journal.last_event_id())
            yield _build_digest(journal, at, last, budget, alerts, now)


def _build_digest(
    journal: JournalReader, at: str, last: DigestState, budget: Budget, alerts: Sequence[Alert], now: float
) -> Digest:
    ended = count_ended_since(journal, min(last.event, journal.last_event_id()))
    held = journal.counts_by_state((State.HELD,))[State.HELD]
    credits = journal.credits_since(last.at)
    month, today = journal.credits_since(month_start(now)), journal.credits_since(day_start(now))
    parts = [f"{ended[state]:,} {word}" for state, word in _STATE_WORDS.items() if ended[state]]
    parts += [pluralize(credits, "credit")] if credits else []
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(last.at))
    summary = ", ".join(parts) or "nothing new"
    lines = [
        f"Since {since}: {summary}.",
        f"Credits: {_render_usage(today, budget.per_day)} today, {_render_usage(month, budget.per_month)} this month.",
        "",
    ]
    problems = [alert.subject for alert in alerts]
    if held:
        is_or_are = "is" if held == 1 else "are"
        problems.append(f"{pluralize(held, 'image')} {is_or_are} held: `picwish-watchd jobs --state held`")
    lines += ["Problems:", *(f"- {each}" for each in problems)] if problems else ["There are no problems."]
    facts: dict[str, object] = {
        **{str(state): ended[state] for state in _STATE_WORDS},
        "held_now": held,
        "credits": credits,
        "credits_today": today,
        "credits_month": month,
        "wrong": problems,
    }
    subject = f"Daily digest: {summary}" + (f"; {pluralize(len(problems), 'problem')}" if problems else "")
    message = Message(f"digest-{now:.0f}-{at}", NotificationEvent.DIGEST, now, subject, "\n".join(lines), facts)
    return Digest(at, message, is_empty=not (parts or problems))


def _render_usage(spent: int, limit: int | None) -> str:
    return f"{spent:,}" if limit is None else f"{spent:,} of {limit:,}"
