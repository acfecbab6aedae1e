"""What was spent since a moment: the status line asks each second, and a day may have tens of thousands of rows."""

import math
import sqlite3
from collections.abc import Callable

_SUM = "SELECT coalesce(sum(credits), 0) FROM charge WHERE at >= ? AND at < ? AND state <> 'released'"


class Sums:
    """Sums over the ledger of one connection, each added up anew only where the journal has changed."""

    def __init__(self, connection: sqlite3.Connection, row: Callable[..., sqlite3.Row]) -> None:
        """``row`` answers the first row of a statement with its parameters."""
        self._connection = connection
        self._row = row
        self._state: tuple[int, int] | None = None
        self._known: dict[float, int] = {}

    def since(self, moment: float) -> int:
        """Credits of all submissions from ``moment`` on that PicWish took or may have taken."""
        if self._connection.in_transaction:  # it may be rolled back: nothing of it is to be remembered
            return self._added_up(moment)
        # our own changes, those that were rolled back among them; and those of other connections
        state = self._connection.total_changes, int(self._row("PRAGMA data_version")[0])
        if self._state != state:
            self._state, self._known = state, {}
        if moment not in self._known:
            # of a month, the day that was just added up need not be added up again
            until = min((later for later in self._known if later > moment), default=math.inf)
            self._known[moment] = self._added_up(moment, until) + self._known.get(until, 0)
        return self._known[moment]

    def _added_up(self, moment: float, until: float = math.inf) -> int:
        return int(self._row(_SUM, (moment, until))[0])
