"""``manual``: the manual page, made from the same source as ``--help``."""

import argparse
import sys
from importlib.resources import files


def run(_args: argparse.Namespace) -> int:
    """Prints it, as man(1) takes it."""
    sys.stdout.write(read_shipped_text("picwish-watchd.1"))
    return 0


def read_shipped_text(name: str) -> str:
    """A text that was made from the command line's definition and is shipped with this program."""
    return files("picwish_watchd.cli").joinpath("texts", name).read_text("utf-8")
