"""The budget at 80 and at 100 %."""

from collections.abc import Iterator

from picwish_watchd.clock import day_start, month_start
from picwish_watchd.config.notifiers import NotificationEvent
from picwish_watchd.config.schema import Budget
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.notify.message import Message
from picwish_watchd.notify.state_file import NotifyState

# per cent
_WARN_PERCENT = 80


def update_budget_alerts(
    memory: NotifyState, journal: JournalReader, budget: Budget, cheapest: int, now: float
) -> Iterator[Message]:
    """What is to be told of the day's and the month's budget, each threshold once; ``cheapest``: what an image costs.

    A budget of 0 is a decision, and no news.
    """
    spans = (
        ("day", budget.per_day, day_start(now), "at midnight"),
        ("month", budget.per_month, month_start(now), "on the first of next month"),
    )
    for span, most, start, turn in spans:
        if not most:
            memory.spent.pop(span, None)
            continue
        spent = journal.credits_since(start)
        reached = 100 if most - spent < cheapest else _WARN_PERCENT if spent * 100 >= most * _WARN_PERCENT else 0
        here, _, before = memory.spent.get(span, "").rpartition("/")
        period = f"{start:.0f}/{most}"
        if reached <= (int(before) if here == period else 0):
            continue
        memory.spent[span] = f"{period}/{reached}"
        yield _build_budget_message(span, most, spent, reached, turn, now)


def _build_budget_message(span: str, most: int, spent: int, reached: int, turn: str, now: float) -> Message:
    limit = f"the budget of {most:,} credits a {span}"
    text = f"{spent:,} of {most:,} credits are spent or reserved."
    if reached == 100:
        subject = f"{limit} is used up"
        text += (
            f" Nothing more is submitted; new images wait in the queue, and it goes on {turn}.\n"
            f"If they should not wait, raise budget.per_{span} in the configuration, then reload the daemon."
        )
    else:
        subject = f"{reached} % of {limit} are used"
        text += f" At {most:,} nothing more is submitted; it goes on {turn}."
    text += "\n`picwish-watchd spend` shows where they went."
    facts = {"span": span, "spent": spent, "limit": most, "percent": reached}
    subject = subject[0].upper() + subject[1:]
    return Message(f"budget-{span}-{now:.0f}-{reached}", NotificationEvent.BUDGET, now, subject, text, facts)
