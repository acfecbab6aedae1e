"""``vacuum``: gives the room that pruning left in the journal's file back to the disk."""

import argparse

from picwish_watchd.cli.loading import resolve_config
from picwish_watchd.clock import Clock
from picwish_watchd.journal.vacuum import vacuum_journal


def run(args: argparse.Namespace) -> int:
    """Does it, and tells how large the file was and is."""
    config = resolve_config(args)
    before, after = vacuum_journal(config.journal, Clock())
    print(f"{config.journal}: {before / 1e6:.1f} MB before, {after / 1e6:.1f} MB now")
    return 0
