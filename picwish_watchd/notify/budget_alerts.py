"""Report when 80 % and 100 % of the budget are used."""

from collections.abc import Iterator

from picwish_watchd.clock import day_start, month_start
from picwish_watchd.config.notifiers import NotificationEvent
from picwish_watchd.config.schema import Budget
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.notify.message import Message
from picwish_watchd.notify.state_file import NotifyState

# Per cent of the budget at which the first message is sent.
_WARN_PERCENT = 80


def update_budget_alerts(
    state: NotifyState, journal: JournalReader, budget: Budget, cheapest: int, now: float
) -> Iterator[Message]:
    """Yield the messages on the budgets of the day and the month that are due; each threshold is reported once.

    ``cheapest`` is the price of the cheapest image in credits: with less than that left, the budget counts as used up.
    A budget of 0 was set on purpose and is not reported.
    """
    spans = (
        ("day", budget.per_day, day_start(now), "at midnight"),
        ("month", budget.per_month, month_start(now), "on the first of next month"),
    )
    for span, limit, start, renewal in spans:
        if not limit:
            state.spent.pop(span, None)
            continue
        spent = journal.credits_since(start)
        percent = 100 if limit - spent < cheapest else _WARN_PERCENT if spent * 100 >= limit * _WARN_PERCENT else 0
        reported_period, _, reported_percent = state.spent.get(span, "").rpartition("/")
        period = f"{start:.0f}/{limit}"
        if percent <= (int(reported_percent) if reported_period == period else 0):
            continue
        state.spent[span] = f"{period}/{percent}"
        yield _build_budget_message(span, limit, spent, percent, renewal, now)


def _build_budget_message(span: str, limit: int, spent: int, percent: int, renewal: str, now: float) -> Message:
    name = f"the budget of {limit:,} credits a {span}"
    text = f"{spent:,} of {limit:,} credits are spent or reserved."
    if percent == 100:
        subject = f"{name} is used up"
        text += (
            f" Nothing more is submitted; new images wait in the queue and continue {renewal}.\n"
            f"If they should not wait, raise budget.per_{span} in the configuration, then reload the daemon."
        )
    else:
        subject = f"{percent} % of {name} are used"
        text += f" At {limit:,} nothing more is submitted until the budget is renewed {renewal}."
    text += "\n`picwish-watchd spend` shows where the credits went."
    facts = {"span": span, "spent": spent, "limit": limit, "percent": percent}
    subject = subject[0].upper() + subject[1:]
    return Message(f"budget-{span}-{now:.0f}-{percent}", NotificationEvent.BUDGET, now, subject, text, facts)
