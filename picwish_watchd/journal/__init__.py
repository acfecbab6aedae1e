"""The journal: queue, history and ledger in one SQLite file; the only room that speaks SQL.

Each name is fetched when it is first asked for: who only looks does not wait for all that writes.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from picwish_watchd.journal.census import Census, Ledger, Totals
    from picwish_watchd.journal.copies import behind_another
    from picwish_watchd.journal.departures import Departures
    from picwish_watchd.journal.locks import DaemonLock
    from picwish_watchd.journal.news import Ending, came_through, ended_since, endings
    from picwish_watchd.journal.overview import Overview, Spent, Waiting
    from picwish_watchd.journal.prune import Slice
    from picwish_watchd.journal.reader import JournalReader
    from picwish_watchd.journal.refusals import refuse_gone, refuse_network, refuse_no_file
    from picwish_watchd.journal.rows import Changes, Running, Spending
    from picwish_watchd.journal.stock import Stock
    from picwish_watchd.journal.store import (
        BudgetReachedError,
        Charge,
        Journal,
        StaleJobError,
        prepare_folder,
    )
else:
    _HOMES = {
        "census": ("Census", "Ledger", "Totals"),
        "copies": ("behind_another",),
        "departures": ("Departures",),
        "locks": ("DaemonLock",),
        "news": ("Ending", "came_through", "ended_since", "endings"),
        "overview": ("Overview", "Spent", "Waiting"),
        "prune": ("Slice",),
        "reader": ("JournalReader",),
        "refusals": ("refuse_gone", "refuse_network", "refuse_no_file"),
        "rows": ("Changes", "Running", "Spending"),
        "stock": ("Stock",),
        "store": ("BudgetReachedError", "Charge", "Journal", "StaleJobError", "prepare_folder"),
    }
    _HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

    def __getattr__(name: str) -> object:  # PEP 562
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)


__all__ = [
    "BudgetReachedError",
    "Census",
    "Changes",
    "Charge",
    "DaemonLock",
    "Departures",
    "Ending",
    "Journal",
    "JournalReader",
    "Ledger",
    "Overview",
    "Running",
    "Slice",
    "Spending",
    "Spent",
    "StaleJobError",
    "Stock",
    "Totals",
    "Waiting",
    "behind_another",
    "came_through",
    "ended_since",
    "endings",
    "prepare_folder",
    "refuse_gone",
    "refuse_network",
    "refuse_no_file",
]
