"""Print tables for people; scripts use ``--json``."""

import sys
from collections.abc import Iterable, Sequence


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Print a plain table to stdout; the columns named in ``right`` are aligned right. Control characters are escaped.

    Without a terminal no cell is folded: each row is one line, for grep.
    """
    # Imported here: a script prints no table.
    from picwish_watchd.wording import printable_path

    cells = [["" if cell is None else printable_path(str(cell)) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        _print_lines([list(headings), *cells], [heading in right for heading in headings])
        return
    # Imported here: it takes as long to load as a whole command runs.
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    for row in cells:
        table.add_row(*row)
    Console(highlight=False, markup=False, emoji=False).print(table)


def _print_lines(lines: Sequence[Sequence[str]], align_right: Sequence[bool]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, align_right, strict=True)
        )
        print(" ".join(padded).rstrip())
