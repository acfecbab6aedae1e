"""From the command line to a configuration, a key, a journal."""

import argparse
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from picwish_watchd import __version__
from picwish_watchd.config.fingerprint import glance
from picwish_watchd.config.locate import find
from picwish_watchd.config.summary import Outline, recalled
from picwish_watchd.errors import JournalError
from picwish_watchd.journal.locks import DaemonLock
from picwish_watchd.journal.status_reader import Overview

if TYPE_CHECKING:
    from picwish_watchd.config.model import Config
    from picwish_watchd.journal.reader import JournalReader

_View = TypeVar("_View", bound=Overview)


def configuration(args: argparse.Namespace) -> "Config":
    """The configuration that the command line or its surroundings name; raises `ConfigError`."""
    # here: it takes longer than what most commands do
    from picwish_watchd.config.loader import load

    return load(_file(args), os.environ)


def configuration_and_key(args: argparse.Namespace) -> "tuple[Config, str]":
    """The same, with the API key."""
    from picwish_watchd.config.api_key import read_key

    config = configuration(args)
    return config, read_key(config, os.environ)


def journal(args: argparse.Namespace) -> "tuple[Config, JournalReader]":
    """The configuration and a read-only view of its journal; raises `ConfigError` and `JournalError`."""
    from picwish_watchd.journal.reader import JournalReader

    config = configuration(args)
    return config, _read(config.journal, JournalReader)


def journal_alone(args: argparse.Namespace, view: type[_View]) -> _View:
    """As `journal`, for commands that need nothing else of the configuration: a ``view`` of it."""
    told = _told_by_the_daemon(args, view)
    return _read(configuration(args).journal, view) if told is None else told[1]


def outlined(args: argparse.Namespace) -> tuple[Outline, Overview]:
    """What `status` needs of the configuration, and figures of its journal; raises `ConfigError` and `JournalError`."""
    told = _told_by_the_daemon(args, Overview)
    if told is not None:
        return told
    config = configuration(args)
    return Outline.of(config), _read(config.journal, Overview)


def _read(path: Path, view: type[_View]) -> _View:
    if missing(path) and missing(Path(f"{path}-wal")):
        # nothing has run here yet
        return view.empty(path)
    return view.open(path)


def _told_by_the_daemon(args: argparse.Namespace, view: type[_View]) -> tuple[Outline, _View] | None:
    """The running daemon has judged the file: where it stands as it was read then, what the daemon told of it will do.

    That also proves the guess where the journal is: only the one that these bytes name tells of them.
    """
    seen = glance(_file(args))
    for place in () if seen is None else seen.journals:
        pid = DaemonLock(place).owner()
        if seen is None or pid is None:
            continue
        # told by `journal`, after what may be wrong with the configuration
        with suppress(JournalError):
            reader = view.open(place)
            report = report_of(pid, reader)
            if report.get("version") == __version__ and (outline := recalled(report.get("config"), seen)) is not None:
                return outline, reader
            reader.close()
    return None


def report_of(pid: int | None, reader: Overview) -> dict[str, Any]:
    """What the daemon of this pid last said of itself; nothing if none runs, or the report is of an earlier one."""
    told: dict[str, Any] = json.loads(reader.report() or "{}")
    return told if pid is not None and told.get("pid") == pid else {}


def _file(args: argparse.Namespace) -> Path:
    return find(args.config, os.environ, _here())


def _here() -> Path:
    try:
        return Path.cwd()
    except OSError:
        # the folder that we were started in is gone
        return Path("/")


def missing(path: Path) -> bool:
    """Nothing is there, for sure: a folder that may not be looked into is no proof of that."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
