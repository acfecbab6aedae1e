"""From the command line to a configuration, a key, a journal."""

import argparse
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from picwish_watchd import __version__
from picwish_watchd.config.outline import Outline, recalled
from picwish_watchd.config.places import find, glance
from picwish_watchd.errors import JournalError
from picwish_watchd.journal import DaemonLock, JournalReader

if TYPE_CHECKING:
    from picwish_watchd.config import Config


def configuration(args: argparse.Namespace) -> "Config":
    """The configuration that the command line or its surroundings name; raises `ConfigError`."""
    from picwish_watchd.config import load  # here: it takes longer than what most commands do

    return load(_file(args), os.environ)


def configuration_and_key(args: argparse.Namespace) -> "tuple[Config, str]":
    """The same, with the API key."""
    from picwish_watchd.config import read_key

    config = configuration(args)
    return config, read_key(config, os.environ)


def journal(args: argparse.Namespace) -> "tuple[Config, JournalReader]":
    """The configuration and a read-only view of its journal; raises `ConfigError` and `JournalError`."""
    config = configuration(args)
    if _missing(config.journal) and _missing(Path(f"{config.journal}-wal")):
        return config, JournalReader.empty(config.journal)  # nothing has run here yet
    return config, JournalReader.open(config.journal)


def outlined(args: argparse.Namespace) -> tuple[Outline, JournalReader]:
    """What `status` needs of the configuration, and its journal; raises `ConfigError` and `JournalError`.

    The running daemon has judged the file: where it stands as it was read then, what the daemon told of it will do.
    """
    seen = glance(_file(args))
    pid = None if seen is None else DaemonLock(seen.journal).owner()
    if seen is not None and pid is not None:
        with suppress(JournalError):  # told below, after what may be wrong with the configuration
            reader = JournalReader.open(seen.journal)
            report = report_of(pid, reader)
            if report.get("version") == __version__ and (outline := recalled(report.get("config"), seen)) is not None:
                return outline, reader
            reader.close()
    config, reader = journal(args)
    return Outline.of(config), reader


def report_of(pid: int | None, reader: JournalReader) -> dict[str, Any]:
    """What the daemon of this pid last said of itself; nothing if none runs, or the report is of an earlier one."""
    told: dict[str, Any] = json.loads(reader.report() or "{}")
    return told if pid is not None and told.get("pid") == pid else {}


def _file(args: argparse.Namespace) -> Path:
    return find(args.config, os.environ, _here())


def _here() -> Path:
    try:
        return Path.cwd()
    except OSError:  # the folder that we were started in is gone
        return Path("/")


def _missing(path: Path) -> bool:
    """Nothing is there, for sure: a folder that may not be looked into is no proof of that."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
