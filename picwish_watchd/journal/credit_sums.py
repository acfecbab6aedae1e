"""Sum up credits since a moment, fast enough to be asked each second on a day with tens of thousands of submissions."""

import math
import sqlite3
from collections.abc import Callable, Mapping

_SUM_SQL = "SELECT coalesce(sum(credits), 0) FROM charge WHERE at >= ? AND at < ? AND state <> 'released'"
#: Whether the ledger may have changed after an event: each change of it comes with an event of its job.
_IS_CHANGED_SQL = (
    "SELECT EXISTS (SELECT 1 FROM event WHERE id > ? AND EXISTS (SELECT 1 FROM charge WHERE job = event.job))"
)


class CreditSums:
    """Sums over the ledger of one connection, which are cached as long as the ledger cannot have changed."""

    def __init__(self, connection: sqlite3.Connection, fetch_row: Callable[..., sqlite3.Row]) -> None:
        """``fetch_row`` returns the first row of a statement with its values."""
        self._connection = connection
        self._fetch_row = fetch_row
        # PRAGMA data_version: it changes when another connection changes the journal.
        self._version: int | None = None
        self._sum_by_start: dict[float, int] = {}

    def credits_since(self, moment: float) -> int:
        """Return the credits of all submissions since ``moment`` that PicWish accepted or may have accepted."""
        version = int(self._fetch_row("PRAGMA data_version")[0])
        if version != self._version:
            self._sum_by_start.clear()
        if moment in self._sum_by_start:
            return self._sum_by_start[moment]
        # The sum of a month is that up to the day that is known already, and that day's sum.
        until = min((later for later in self._sum_by_start if later > moment), default=math.inf)
        total = self._sum_between(moment, until) + self._sum_by_start.get(until, 0)
        # What an open transaction has done may be rolled back, and must not be cached.
        if not self._connection.in_transaction:
            self._version, self._sum_by_start[moment] = version, total
        return total

    def add_submission(self, at: float, price: int) -> None:
        """Add the credits of a submission that this connection writes; call `invalidate` if it is not committed."""
        for moment in self._sum_by_start:
            self._sum_by_start[moment] += price if at >= moment else 0

    def invalidate(self) -> None:
        """Drop all sums: this connection changes what counts of an earlier submission, or rolls back."""
        self._sum_by_start.clear()

    def adopt_sums(self, credits_by_start: Mapping[float, int], event: int) -> None:
        """Take over sums that another process counted as of event ``event``, if they are still right."""
        version = int(self._fetch_row("PRAGMA data_version")[0])
        if not self._fetch_row(_IS_CHANGED_SQL, (event,))[0]:
            self._version, self._sum_by_start = version, dict(credits_by_start)

    def _sum_between(self, moment: float, until: float = math.inf) -> int:
        return int(self._fetch_row(_SUM_SQL, (moment, until))[0])
