"""What was spent since a moment: the status line asks each second, and a day may have tens of thousands of rows."""

import math
import sqlite3
from collections.abc import Callable, Mapping

_SUM_SQL = "SELECT coalesce(sum(credits), 0) FROM charge WHERE at >= ? AND at < ? AND state <> 'released'"
#: Whether the ledger may have changed after a line of history: every change has a line of its job.
_IS_CHANGED_SQL = (
    "SELECT EXISTS (SELECT 1 FROM event WHERE id > ? AND EXISTS (SELECT 1 FROM charge WHERE job = event.job))"
)


class CreditSums:
    """Sums over the ledger of one connection, each added up anew only where the ledger may have changed."""

    def __init__(self, connection: sqlite3.Connection, row: Callable[..., sqlite3.Row]) -> None:
        """``row`` answers the first row of a statement with its parameters."""
        self._connection = connection
        self._fetch_row = row
        # of the journal, as other connections change it
        self._version: int | None = None
        self._sum_by_start: dict[float, int] = {}

    def credits_since(self, moment: float) -> int:
        """Credits of all submissions from ``moment`` on that PicWish took or may have taken."""
        version = int(self._fetch_row("PRAGMA data_version")[0])
        if version != self._version:
            self._sum_by_start.clear()
        if moment in self._sum_by_start:
            return self._sum_by_start[moment]
        # of a month, the day that was just added up need not be added up again
        until = min((later for later in self._sum_by_start if later > moment), default=math.inf)
        found = self._sum_between(moment, until) + self._sum_by_start.get(until, 0)
        # it may be rolled back: nothing of it is to be remembered
        if not self._connection.in_transaction:
            self._version, self._sum_by_start[moment] = version, found
        return found

    def add_submission(self, at: float, credits: int) -> None:
        """This connection writes one more submission down; `forget`, should it not be committed."""
        for moment in self._sum_by_start:
            self._sum_by_start[moment] += credits if at >= moment else 0

    def invalidate(self) -> None:
        """This connection changes what counts of an earlier one, or undoes what it did."""
        self._sum_by_start.clear()

    def adopt_sums(self, credits: Mapping[float, int], event: int) -> None:
        """Takes over the sums that somebody knew as of line ``event`` of the history, if they are still right."""
        version = int(self._fetch_row("PRAGMA data_version")[0])
        if not self._fetch_row(_IS_CHANGED_SQL, (event,))[0]:
            self._version, self._sum_by_start = version, dict(credits)

    def _sum_between(self, moment: float, until: float = math.inf) -> int:
        return int(self._fetch_row(_SUM_SQL, (moment, until))[0])
