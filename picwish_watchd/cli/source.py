"""From the command line to a configuration, a key, a journal."""

import argparse
import os
from pathlib import Path

from picwish_watchd.config import Config, find, load, read_key
from picwish_watchd.journal import JournalReader


def configuration(args: argparse.Namespace) -> Config:
    """The configuration that the command line or its surroundings name; raises `ConfigError`."""
    return load(find(args.config, os.environ, _here()), os.environ)


def _here() -> Path:
    try:
        return Path.cwd()
    except OSError:  # the folder that we were started in is gone
        return Path("/")


def configuration_and_key(args: argparse.Namespace) -> tuple[Config, str]:
    """The same, with the API key."""
    config = configuration(args)
    return config, read_key(config, os.environ)


def journal(args: argparse.Namespace) -> tuple[Config, JournalReader]:
    """The configuration and a read-only view of its journal; raises `ConfigError` and `JournalError`."""
    config = configuration(args)
    if _missing(config.journal) and _missing(Path(f"{config.journal}-wal")):
        return config, JournalReader.empty(config.journal)  # nothing has run here yet
    return config, JournalReader.open(config.journal)


def _missing(path: Path) -> bool:
    """Nothing is there, for sure: a folder that may not be looked into is no proof of that."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
