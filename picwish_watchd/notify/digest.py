"""Once a day: what was done, what it cost, what is wrong."""

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

_STATE_WORDS = {State.DONE: "done", State.FAILED: "failed", State.HELD: "held", State.REJECTED: "refused"}


@dataclass(frozen=True, slots=True)
class Digest:
    """The digest of one time of day; ``empty``: nothing happened and nothing is wrong."""

    time_of_day: str
    message: Message
    is_empty: bool


def pop_due_digests(
    memory: NotifyState,
    journal: JournalReader,
    times: Collection[str],
    budget: Budget,
    troubles: Sequence[Alert],
    now: float,
) -> Iterator[Digest]:
    """Those whose local time of day has come, once a day; one that was missed is made up for on the same day."""
    for gone in memory.digests.keys() - set(times):
        del memory.digests[gone]
    local = time.localtime(now)
    today, clock = time.strftime("%Y-%m-%d", local), time.strftime("%H:%M", local)
    for at in times:
        last = memory.digests.get(at)
        if last is None:
            # the first one comes the next time that the hour strikes, and tells of what has been since now
            day = today if clock >= at else ""
            memory.digests[at] = DigestState(day, now, journal.last_event_id())
        elif last.day != today and clock >= at:
            memory.digests[at] = DigestState(today, now, journal.last_event_id())
            yield _build_digest(journal, at, last, budget, troubles, now)


def _build_digest(
    journal: JournalReader, at: str, last: DigestState, budget: Budget, troubles: Sequence[Alert], now: float
) -> Digest:
    ended = count_ended_since(journal, min(last.event, journal.last_event_id()))
    held = journal.counts_by_state((State.HELD,))[State.HELD]
    credits = journal.credits_since(last.at)
    month, today = journal.credits_since(month_start(now)), journal.credits_since(day_start(now))
    said = [f"{ended[state]:,} {word}" for state, word in _STATE_WORDS.items() if ended[state]]
    said += [pluralize(credits, "credit")] if credits else []
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(last.at))
    summary = ", ".join(said) or "nothing new"
    lines = [
        f"Since {since}: {summary}.",
        f"Credits: {_render_usage(today, budget.per_day)} today, {_render_usage(month, budget.per_month)} this month.",
        "",
    ]
    wrong = [trouble.subject for trouble in troubles]
    if held:
        wrong.append(
            f"{pluralize(held, 'image')} {'is' if held == 1 else 'are'} held: `picwish-watchd jobs --state held`"
        )
    lines += ["What is wrong:", *(f"- {each}" for each in wrong)] if wrong else ["Nothing is wrong."]
    facts: dict[str, object] = {
        **{str(state): ended[state] for state in _STATE_WORDS},
        "held_now": held,
        "credits": credits,
        "credits_today": today,
        "credits_month": month,
        "wrong": wrong,
    }
    subject = f"the day: {summary}" + (f"; {pluralize(len(wrong), 'thing')} wrong" if wrong else "")
    subject = subject[0].upper() + subject[1:]
    notice = Message(f"digest-{now:.0f}-{at}", NotificationEvent.DIGEST, now, subject, "\n".join(lines), facts)
    return Digest(at, notice, is_empty=not (said or wrong))


def _render_usage(spent: int, most: int | None) -> str:
    return f"{spent:,}" if most is None else f"{spent:,} of {most:,}"
