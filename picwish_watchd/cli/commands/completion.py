"""``completion``: print a script that makes a shell complete our commands and options."""

import argparse
import sys

from picwish_watchd.cli.commands.manual import read_shipped_text


def run(args: argparse.Namespace) -> int:
    """Print the script for the shell that ``args`` names."""
    sys.stdout.write(read_shipped_text(f"completion.{args.shell}"))
    return 0
