"""A journal that takes nothing for now is told of once, and so is the end of that: not with each try."""

import structlog

from picwish_watchd.errors import JournalTemporaryError
from picwish_watchd.journal.writer import Journal

_log = structlog.get_logger()


class JournalOutage:
    """What the log says of a journal that another program keeps locked, or whose disk is full."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        # what the journal had taken when that was told
        self._reported_commits: int | None = None

    def report(self, error: JournalTemporaryError, **about: object) -> None:
        """It did not take something; ``about``: what waits for it. Told once, until it has taken something again."""
        if self._reported_commits != self._journal.commits:
            self._reported_commits = self._journal.commits
            _log.error("journal.waits", reason=error.message, **about)

    def check_recovery(self) -> None:
        """To be called once a second: tells that it takes things again."""
        if self._reported_commits is not None and self._reported_commits != self._journal.commits:
            self._reported_commits = None
            _log.info("journal.goes_on")
