"""Open the journal for a command that only looks, without loading the configuration's schema where that can be spared.

The running daemon has judged the configuration file already. Where the file is still the same, what the daemon's report
says of it is enough: pydantic and the schema take 0.2 s to load.
"""

import argparse
import os
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from picwish_watchd.config.fingerprint import read_fingerprint
from picwish_watchd.config.locate import find_config_file
from picwish_watchd.config.summary import ConfigSummary, summary_from_json
from picwish_watchd.errors import JournalError
from picwish_watchd.journal.locks import DaemonLock
from picwish_watchd.journal.status_reader import StatusReader
from picwish_watchd.reporting.daemon_report import read_daemon_report

_View = TypeVar("_View", bound=StatusReader)


def open_journal_view(args: argparse.Namespace, view: type[_View]) -> _View:
    """Open a read-only ``view`` of the journal, for commands that need nothing else of the configuration.

    Raises `ConfigError` and `JournalError`.
    """
    reused = _reuse_daemon_summary(args, view)
    if reused is not None:
        return reused[1]
    # Imported here: the schema takes longer to load than all else that these commands do.
    from picwish_watchd.config.loader import load_config

    return open_view(load_config(config_file(args), os.environ).journal, view)


def open_summary_and_status(args: argparse.Namespace) -> tuple[ConfigSummary, StatusReader]:
    """Return what `status` needs of the configuration, and a reader of the journal's figures.

    Raises `ConfigError` and `JournalError`.
    """
    reused = _reuse_daemon_summary(args, StatusReader)
    if reused is not None:
        return reused
    # Imported here: the schema takes longer to load than all else that `status` does.
    from picwish_watchd.config.loader import load_config

    config = load_config(config_file(args), os.environ)
    return config.summary(), open_view(config.journal, StatusReader)


def open_view(path: Path, view: type[_View]) -> _View:
    """Open the journal at ``path`` for reading; where nothing has run yet, return the view of an empty one."""
    if is_missing(path) and is_missing(Path(f"{path}-wal")):
        return view.empty(path)
    return view.open(path)


def _reuse_daemon_summary(args: argparse.Namespace, view: type[_View]) -> tuple[ConfigSummary, _View] | None:
    """Return the running daemon's summary of the configuration, if the file has not changed since it was read.

    The match also confirms the guess of the journal's path: only the daemon that read these bytes reports their digest.
    """
    fingerprint = read_fingerprint(config_file(args))
    for path in () if fingerprint is None else fingerprint.journal_candidates:
        pid = DaemonLock(path).owner_pid()
        if fingerprint is None or pid is None:
            continue
        # An unusable journal is reported when it is opened for the command, after the faults of the configuration.
        with suppress(JournalError):
            reader = view.open(path)
            report = read_daemon_report(pid, reader.daemon_report())
            summary = None if report is None else summary_from_json(report.config, fingerprint)
            if summary is not None:
                return summary, reader
            reader.close()
    return None


def config_file(args: argparse.Namespace) -> Path:
    """Return the path of the configuration file that the command line or environment names. Raises `ConfigError`."""
    return find_config_file(args.config, os.environ, _working_folder())


def _working_folder() -> Path:
    try:
        return Path.cwd()
    except OSError:
        # The folder that the command was started in was removed.
        return Path("/")


def is_missing(path: Path) -> bool:
    """Return whether ``path`` surely does not exist: a folder that may not be looked into proves nothing."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
