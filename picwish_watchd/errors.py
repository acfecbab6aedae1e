"""The errors that end a command, each with the exit code that it ends with.

    WatchdError            what went wrong, where, and what to do next
    |- UsageError          2   the command line is wrong
    |- JournalError        74  the journal is damaged, newer than this program, or lies where SQLite is not safe
    |  |- JournalBusyError       75  another daemon holds the journal
    |  `- JournalTemporaryError  75  its disk is full, or another program keeps it locked: to be tried again
    `- ConfigError         78  the configuration is wrong, or there is no key

What can go wrong with one image is not here: it is a `picwish_watchd.job.Problem`, a value that the journal keeps.
"""

import os


class WatchdError(Exception):
    """Root of all errors that a user may see; ``exit_code`` follows sysexits(3)."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(WatchdError):
    """The command line asks for something that cannot be."""

    exit_code = 2


class JournalError(WatchdError):
    """The journal cannot be used; nothing was changed in it."""

    # 74
    exit_code = os.EX_IOERR


class JournalBusyError(JournalError):
    """Another daemon holds this journal."""

    # 75
    exit_code = os.EX_TEMPFAIL


class JournalTemporaryError(JournalError):
    """The journal cannot be written at the moment: its disk is full, or another program keeps it locked."""

    # 75: systemd starts the daemon again
    exit_code = os.EX_TEMPFAIL


class ConfigError(WatchdError):
    """The configuration is wrong; ``message`` holds every fault, one a line."""

    # 78
    exit_code = os.EX_CONFIG
