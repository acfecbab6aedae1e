"""The budget: how much may still be spent today and this month. Exact, for the price is known before."""

from typing import Protocol

from picwish_watchd.clock import day_start, month_start
from picwish_watchd.journal.status_reader import StatusReader
from picwish_watchd.wording import pluralize


class CreditLimits(Protocol):
    """Credits that may be spent, by local day and month; None: no limit.

    The section `budget` of the configuration is one, and so is the configuration's summary, which `status` has.
    """

    @property
    def per_day(self) -> int | None:
        """Credits a day."""

    @property
    def per_month(self) -> int | None:
        """Credits a month."""


class CreditBudget:
    """A budget at a moment (Unix seconds). Pending and doubtful submissions count as spent, on the day of sending."""

    def __init__(self, budget: CreditLimits, now: float) -> None:
        self.budget = budget
        self.now = now

    def limits(self) -> list[tuple[float, int]]:
        """Each limit as (from this moment on, credits at most)."""
        return [(moment, most) for moment, most in self._period_limits() if most is not None]

    def remaining(self, journal: StatusReader) -> tuple[int | None, int | None]:
        """Credits that may still be spent (today, this month); None where there is no limit."""
        day, month = (
            None if most is None else max(0, most - journal.credits_since(moment))
            for moment, most in self._period_limits()
        )
        return day, month

    def why_exceeded(self, journal: StatusReader, price: int) -> str | None:
        """Why ``price`` credits cannot be spent now, or None."""
        for (moment, most), name in zip(self.limits(), self._limit_names(), strict=True):
            spent = journal.credits_since(moment)
            if spent + price > most:
                turn = "at midnight" if name == "day" else "on the first of next month"
                limit = f"the budget of {pluralize(most, 'credit')} a {name}"
                return f"{limit} is reached ({spent} spent or reserved); it goes on {turn}"
        return None

    def _period_limits(self) -> tuple[tuple[float, int | None], tuple[float, int | None]]:
        return (day_start(self.now), self.budget.per_day), (month_start(self.now), self.budget.per_month)

    def _limit_names(self) -> list[str]:
        return [
            name for name, most in (("day", self.budget.per_day), ("month", self.budget.per_month)) if most is not None
        ]
