"""From the command line to a configuration, a key, a journal."""

import argparse
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from picwish_watchd import __version__
from picwish_watchd.config.fingerprint import read_fingerprint
from picwish_watchd.config.locate import find_config_file
from picwish_watchd.config.summary import ConfigSummary, summary_from_json
from picwish_watchd.errors import JournalError
from picwish_watchd.journal.locks import DaemonLock
from picwish_watchd.journal.status_reader import StatusReader

if TYPE_CHECKING:
    from picwish_watchd.config.model import Config
    from picwish_watchd.journal.reader import JournalReader

_View = TypeVar("_View", bound=StatusReader)


def resolve_config(args: argparse.Namespace) -> "Config":
    """The configuration that the command line or its surroundings name; raises `ConfigError`."""
    # here: it takes longer than what most commands do
    from picwish_watchd.config.loader import load_config

    return load_config(_config_file(args), os.environ)


def resolve_config_and_key(args: argparse.Namespace) -> "tuple[Config, str]":
    """The same, with the API key."""
    from picwish_watchd.config.api_key import read_api_key

    config = resolve_config(args)
    return config, read_api_key(config, os.environ)


def open_config_and_journal(args: argparse.Namespace) -> "tuple[Config, JournalReader]":
    """The configuration and a read-only view of its journal; raises `ConfigError` and `JournalError`."""
    from picwish_watchd.journal.reader import JournalReader

    config = resolve_config(args)
    return config, _open_view(config.journal, JournalReader)


def open_journal_view(args: argparse.Namespace, view: type[_View]) -> _View:
    """As `journal`, for commands that need nothing else of the configuration: a ``view`` of it."""
    told = _reuse_daemon_summary(args, view)
    return _open_view(resolve_config(args).journal, view) if told is None else told[1]


def open_summary_and_status(args: argparse.Namespace) -> tuple[ConfigSummary, StatusReader]:
    """What `status` needs of the configuration, and figures of its journal; raises `ConfigError` and `JournalError`."""
    told = _reuse_daemon_summary(args, StatusReader)
    if told is not None:
        return told
    config = resolve_config(args)
    return ConfigSummary.from_config(config), _open_view(config.journal, StatusReader)


def _open_view(path: Path, view: type[_View]) -> _View:
    if is_missing(path) and is_missing(Path(f"{path}-wal")):
        # nothing has run here yet
        return view.empty(path)
    return view.open(path)


def _reuse_daemon_summary(args: argparse.Namespace, view: type[_View]) -> tuple[ConfigSummary, _View] | None:
    """The running daemon has judged the file: where it stands as it was read then, what the daemon told of it will do.

    That also proves the guess where the journal is: only the one that these bytes name tells of them.
    """
    seen = read_fingerprint(_config_file(args))
    for place in () if seen is None else seen.journal_candidates:
        pid = DaemonLock(place).owner_pid()
        if seen is None or pid is None:
            continue
        # told by `journal`, after what may be wrong with the configuration
        with suppress(JournalError):
            reader = view.open(place)
            report = read_daemon_report(pid, reader)
            if (
                report.get("version") == __version__
                and (outline := summary_from_json(report.get("config"), seen)) is not None
            ):
                return outline, reader
            reader.close()
    return None


def read_daemon_report(pid: int | None, reader: StatusReader) -> dict[str, Any]:
    """What the daemon of this pid last said of itself; nothing if none runs, or the report is of an earlier one."""
    told: dict[str, Any] = json.loads(reader.daemon_report() or "{}")
    return told if pid is not None and told.get("pid") == pid else {}


def _config_file(args: argparse.Namespace) -> Path:
    return find_config_file(args.config, os.environ, _working_folder())


def _working_folder() -> Path:
    try:
        return Path.cwd()
    except OSError:
        # the folder that we were started in is gone
        return Path("/")


def is_missing(path: Path) -> bool:
    """Nothing is there, for sure: a folder that may not be looked into is no proof of that."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
