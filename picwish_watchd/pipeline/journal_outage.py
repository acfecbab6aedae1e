"""Log once that the journal cannot be written, and once that it can again, not at each attempt."""

import structlog

from picwish_watchd.errors import JournalTemporaryError
from picwish_watchd.journal.writer import Journal

_log = structlog.get_logger()


class JournalOutage:
    """A time in which the journal cannot be written: another program keeps it locked, or its disk is full."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        # The journal's number of commits when the outage was logged; None if there is no outage.
        self._reported_commits: int | None = None

    def report(self, error: JournalTemporaryError, **about: object) -> None:
        """Log that a write failed, unless this outage was logged. ``about`` are log fields that say what waits."""
        if self._reported_commits != self._journal.commits:
            self._reported_commits = self._journal.commits
            _log.error("journal.waits", reason=error.message, **about)

    def check_recovery(self) -> None:
        """Log the end of the outage if the journal was written since. To be called once a second."""
        if self._reported_commits is not None and self._reported_commits != self._journal.commits:
            self._reported_commits = None
            _log.info("journal.goes_on")
