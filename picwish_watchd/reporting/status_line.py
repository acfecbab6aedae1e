"""The state of the daemon in one line, as `systemctl status` has room for."""

from picwish_watchd.clock import day_start, month_start
from picwish_watchd.config.model import Config
from picwish_watchd.config.schema import Budget
from picwish_watchd.job import UNFINISHED, State
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.pipeline.gate import Gate
from picwish_watchd.pipeline.inboxes import Inboxes
from picwish_watchd.pricing import PRICES
from picwish_watchd.reporting.forecast import describe_delays
from picwish_watchd.wording import render_approval_wait, render_spent


def render_status_line(config: Config, journal: JournalReader, now: float, *, gate: Gate, inboxes: Inboxes) -> str:
    """Return the unfinished jobs, today's credits (local time) and all problems, separated by "; ".

    ``now`` is in Unix seconds. Raises `JournalTemporaryError` while the journal cannot be read.
    """
    totals = journal.counts_by_state((*UNFINISHED, State.HELD))
    moving = [f"{totals[state]} {state}" for state in UNFINISHED if totals[state]]
    parts = [", ".join(moving) or "idle", _render_credits(config.budget, journal, now)]
    if gate.why_not_submitting is not None:
        parts.append(f"blocked: {gate.why_not_submitting.message}")
    parts += [
        f"inbox of {inbox.rule.name} away: {inbox.unavailable}" for inbox in inboxes.list_active() if inbox.unavailable
    ]
    parts += describe_delays(journal, now, journal.counts_by_rule())
    prices = {rule.name: PRICES[rule.type] for rule in config.rules}
    parts += [
        render_approval_wait(images, prices[rule], rule)
        for rule, images in journal.flood_counts().items()
        if rule in prices
    ]
    if totals[State.HELD]:
        parts.append(f"{totals[State.HELD]} held: see `picwish-watchd jobs --state held`")
    return "; ".join(parts)


def _render_credits(budget: Budget, journal: JournalReader, now: float) -> str:
    today = journal.credits_since(day_start(now))
    text = f"{render_spent(today, budget.per_day)} credits today"
    if budget.per_month is None:
        return text
    return f"{text}, {render_spent(journal.credits_since(month_start(now)), budget.per_month)} this month"
