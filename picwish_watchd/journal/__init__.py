"""The journal: queue, history and ledger in one SQLite file; the only room that speaks SQL."""

from picwish_watchd.journal.locks import DaemonLock
from picwish_watchd.journal.reader import JournalReader, Running, Spending
from picwish_watchd.journal.refusals import refuse_gone
from picwish_watchd.journal.rows import Changes
from picwish_watchd.journal.store import (
    BudgetReachedError,
    Charge,
    Journal,
    StaleJobError,
    prepare_folder,
    refuse_network,
)

__all__ = [
    "BudgetReachedError",
    "Changes",
    "Charge",
    "DaemonLock",
    "Journal",
    "JournalReader",
    "Running",
    "Spending",
    "StaleJobError",
    "prepare_folder",
    "refuse_gone",
    "refuse_network",
]
