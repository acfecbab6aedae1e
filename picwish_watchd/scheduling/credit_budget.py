"""The budget: what may still be spent today and this month. It is exact, because prices are known in advance."""

from typing import Protocol

from picwish_watchd.clock import day_start, month_start
from picwish_watchd.journal.status_reader import StatusReader
from picwish_watchd.wording import pluralize


class CreditLimits(Protocol):
    """The credits that may be spent per local day and month; None means no limit.

    The section `budget` of the configuration has this form, and so has the configuration's summary for `status`.
    """

    @property
    def per_day(self) -> int | None:
        """Credits a day."""

    @property
    def per_month(self) -> int | None:
        """Credits a month."""


class CreditBudget:
    """The budget at one moment. Pending and doubtful submissions count as spent, on the day they were sent."""

    def __init__(self, budget: CreditLimits, now: float) -> None:
        """Take the day and the month from ``now``, in Unix seconds."""
        self.budget = budget
        self.now = now

    def limits(self) -> list[tuple[float, int]]:
        """Return each limit as the start of its period (Unix seconds) and the credits allowed since then."""
        return [(start, limit) for start, limit in self._period_limits() if limit is not None]

    def remaining(self, journal: StatusReader) -> tuple[int | None, int | None]:
        """Return the credits that may still be spent today and this month; None where there is no limit."""
        day, month = (
            None if limit is None else max(0, limit - journal.credits_since(start))
            for start, limit in self._period_limits()
        )
        return day, month

    def why_exceeded(self, journal: StatusReader, price: int) -> str | None:
        """Return why ``price`` credits cannot be spent now, or None if they can."""
        for (start, limit), name in zip(self.limits(), self._limit_names(), strict=True):
            spent = journal.credits_since(start)
            if spent + price > limit:
                renewal = "at midnight" if name == "day" else "on the first of next month"
                budget = f"the budget of {pluralize(limit, 'credit')} a {name}"
                return f"{budget} is reached ({spent} spent or reserved); submitting continues {renewal}"
        return None

    def _period_limits(self) -> tuple[tuple[float, int | None], tuple[float, int | None]]:
        return (day_start(self.now), self.budget.per_day), (month_start(self.now), self.budget.per_month)

    def _limit_names(self) -> list[str]:
        limits = (("day", self.budget.per_day), ("month", self.budget.per_month))
        return [name for name, limit in limits if limit is not None]
