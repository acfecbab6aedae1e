"""The journal: queue, history and ledger in one SQLite file; the only room that speaks SQL."""

from picwish_watchd.journal.census import Census, Ledger, Totals
from picwish_watchd.journal.copies import behind_another
from picwish_watchd.journal.locks import DaemonLock
from picwish_watchd.journal.news import Ending, came_through, ended_since, endings
from picwish_watchd.journal.prune import Slice
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.journal.refusals import refuse_gone, refuse_network
from picwish_watchd.journal.rows import Changes, Running, Spending
from picwish_watchd.journal.store import (
    BudgetReachedError,
    Charge,
    Journal,
    StaleJobError,
    prepare_folder,
)
from picwish_watchd.journal.vacuum import vacuum

__all__ = [
    "BudgetReachedError",
    "Census",
    "Changes",
    "Charge",
    "DaemonLock",
    "Ending",
    "Journal",
    "JournalReader",
    "Ledger",
    "Running",
    "Slice",
    "Spending",
    "StaleJobError",
    "Totals",
    "behind_another",
    "came_through",
    "ended_since",
    "endings",
    "prepare_folder",
    "refuse_gone",
    "refuse_network",
    "vacuum",
]
