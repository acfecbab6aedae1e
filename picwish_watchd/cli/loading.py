"""Load the configuration, the API key and the journal that the command line names."""

import argparse
import os

from picwish_watchd.cli.journal_views import config_file, open_view
from picwish_watchd.config.api_key import read_api_key
from picwish_watchd.config.loader import load_config
from picwish_watchd.config.model import Config
from picwish_watchd.journal.reader import JournalReader


def resolve_config(args: argparse.Namespace) -> Config:
    """Load the configuration that the command line or the environment names. Raises `ConfigError`."""
    return load_config(config_file(args), os.environ)


def resolve_config_and_key(args: argparse.Namespace) -> tuple[Config, str]:
    """Load the configuration and read the API key. Raises `ConfigError`."""
    config = resolve_config(args)
    return config, read_api_key(config, os.environ)


def open_config_and_journal(args: argparse.Namespace) -> tuple[Config, JournalReader]:
    """Load the configuration and open its journal for reading. Raises `ConfigError` and `JournalError`."""
    config = resolve_config(args)
    return config, open_view(config.journal, JournalReader)
