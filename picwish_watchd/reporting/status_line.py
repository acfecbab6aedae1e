"""How things stand, in the one line that `systemctl status` has room for."""

from picwish_watchd.clock import day_start, month_start
from picwish_watchd.job import UNFINISHED, State
from picwish_watchd.pipeline.context import PRICES, StepContext
from picwish_watchd.pipeline.gate import Gate
from picwish_watchd.pipeline.inboxes import Inboxes
from picwish_watchd.reporting.forecast import describe_delays
from picwish_watchd.wording import render_approval_wait, render_spent


def render_status_line(context: StepContext, *, gate: Gate, desks: Inboxes) -> str:
    """The jobs on their way, the credits of today (local time), and all that is wrong; parted by "; "."""
    totals = context.journal.counts_by_state((*UNFINISHED, State.HELD))
    moving = [f"{totals[state]} {state}" for state in UNFINISHED if totals[state]]
    parts = [", ".join(moving) or "idle", _render_credits(context)]
    if gate.why_not_submitting is not None:
        parts.append(f"blocked: {gate.why_not_submitting.message}")
    parts += [f"inbox of {desk.rule.name} away: {desk.unavailable}" for desk in desks.list_active() if desk.unavailable]
    parts += describe_delays(context.journal, context.clock.now(), context.journal.counts_by_rule())
    prices = {rule.name: PRICES[rule.type] for rule in context.config.rules}
    parts += [
        render_approval_wait(images, prices[rule], rule)
        for rule, images in context.journal.flood_counts().items()
        if rule in prices
    ]
    if totals[State.HELD]:
        parts.append(f"{totals[State.HELD]} held: see `picwish-watchd jobs --state held`")
    return "; ".join(parts)


def _render_credits(context: StepContext) -> str:
    journal, budget, now = context.journal, context.config.budget, context.clock.now()
    today = journal.credits_since(day_start(now))
    text = f"{render_spent(today, budget.per_day)} credits today"
    if budget.per_month is None:
        return text
    return f"{text}, {render_spent(journal.credits_since(month_start(now)), budget.per_month)} this month"
