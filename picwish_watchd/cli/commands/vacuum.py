"""``vacuum``: shrink the journal's file by the space that pruning left in it."""

import argparse

from picwish_watchd.cli.loading import resolve_config
from picwish_watchd.clock import Clock
from picwish_watchd.journal.vacuum import vacuum_journal


def run(args: argparse.Namespace) -> int:
    """Shrink the journal's file and print its size before and after."""
    config = resolve_config(args)
    before, after = vacuum_journal(config.journal, Clock())
    print(f"{config.journal}: {before / 1e6:.1f} MB before, {after / 1e6:.1f} MB now")
    return 0
