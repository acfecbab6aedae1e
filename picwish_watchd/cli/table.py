"""Tables for people; scripts ask for ``--json``."""

import sys
from collections.abc import Iterable, Sequence

from picwish_watchd.files.names import shown


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Prints a plain table on stdout; the columns named in ``right`` are set to the right. Names are made harmless."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else shown(str(cell)) for cell in row))
    # without a terminal nothing is folded: a line stays a line for grep
    width = None if sys.stdout.isatty() else 10_000
    Console(width=width, highlight=False, markup=False, emoji=False).print(table)
