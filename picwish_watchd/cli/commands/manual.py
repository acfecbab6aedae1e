"""``manual``: print the manual page, which is generated from the same source as ``--help``."""

import argparse
import sys
from importlib.resources import files


def run(_args: argparse.Namespace) -> int:
    """Print the manual page in the format of man(1)."""
    sys.stdout.write(read_shipped_text("picwish-watchd.1"))
    return 0


def read_shipped_text(name: str) -> str:
    """Return a shipped text of this name; these texts are generated from the definition of the command line."""
    return files("picwish_watchd.cli").joinpath("texts", name).read_text("utf-8")
