"""``completion``: what makes a shell complete our commands and options."""

import argparse
import sys

from picwish_watchd.cli.commands.manual import read_shipped_text


def run(args: argparse.Namespace) -> int:
    """Prints it, as the shell takes it."""
    sys.stdout.write(read_shipped_text(f"completion.{args.shell}"))
    return 0
