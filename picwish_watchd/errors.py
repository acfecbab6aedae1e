"""Errors that end a command, each with the exit code of the command.

    WatchdError            what went wrong, where, and what to do next
    |- UsageError          2   the command line is wrong
    |- JournalError        74  the journal is damaged, newer than this program, or on a disk unsafe for SQLite
    |  |- JournalBusyError       75  another daemon holds the journal
    |  `- JournalTemporaryError  75  its disk is full, or another program keeps it locked: try again
    `- ConfigError         78  the configuration is wrong, or there is no key

A problem with one image is not an exception but a value: `picwish_watchd.job.Problem`, kept in the journal.
"""

import os


class WatchdError(Exception):
    """Base of all errors that a user may see; ``exit_code`` follows sysexits(3)."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(WatchdError):
    """The command line is wrong."""

    exit_code = 2


class JournalError(WatchdError):
    """The journal cannot be used; nothing was changed in it."""

    # EX_IOERR is 74.
    exit_code = os.EX_IOERR


class JournalBusyError(JournalError):
    """Another daemon holds this journal."""

    # EX_TEMPFAIL is 75.
    exit_code = os.EX_TEMPFAIL


class JournalTemporaryError(JournalError):
    """The journal cannot be written at the moment: its disk is full, or another program keeps it locked."""

    # EX_TEMPFAIL is 75; systemd then starts the daemon again.
    exit_code = os.EX_TEMPFAIL


class ConfigError(WatchdError):
    """The configuration is wrong; ``message`` lists all errors, one a line."""

    # EX_CONFIG is 78.
    exit_code = os.EX_CONFIG
