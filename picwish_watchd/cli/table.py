"""Tables for people; scripts ask for ``--json``."""

import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import zip_longest

from picwish_watchd.files.names import shown

_GAP = "  "
_NARROWEST = 8  # cells; a column that is folded to less cannot be read


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Prints a plain table on stdout; the columns named in ``right`` are set to the right. Names are made harmless.

    On a terminal what is too wide is folded within its column. Elsewhere a line stays a line, for grep.
    """
    table = [list(headings), *(["" if cell is None else shown(str(cell)) for cell in row] for row in rows)]
    widths = [max(map(cells, column)) for column in zip(*table, strict=True)]
    terminal = sys.stdout.isatty()
    if terminal:
        widths = fitting(widths, shutil.get_terminal_size().columns)
    for number, row in enumerate(table):
        folded = [fold(cell, width) for cell, width in zip(row, widths, strict=True)]
        for line in zip_longest(*folded, fillvalue=""):
            padded = (
                _padded(part, width, to_the_right=heading in right)
                for part, width, heading in zip(line, widths, headings, strict=True)
            )
            text = _GAP.join(padded).rstrip()
            bold = terminal and number == 0 and os.environ.get("TERM") != "dumb"
            print(f"\x1b[1m{text}\x1b[0m" if bold else text)


def cells(text: str) -> int:
    """How many columns of a terminal a text takes: two for each wide letter, none for what stands on another one."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def fitting(widths: Sequence[int], room: int) -> list[int]:
    """The widths of all columns, the widest made narrower until ``room`` is enough, or none has anything to spare."""
    fitted = list(widths)
    while sum(fitted) + len(_GAP) * (len(fitted) - 1) > room and max(fitted, default=0) > _NARROWEST:
        fitted[fitted.index(max(fitted))] -= 1
    return fitted


def fold(text: str, width: int) -> list[str]:
    """The lines that a text takes in a column: broken after a blank in the second half of a line, or anywhere."""
    lines = []
    while cells(text) > width:
        end = next(end for end in range(1, len(text) + 1) if cells(text[:end]) > width) - 1 or 1
        blank = text.rfind(" ", end // 2, end + 1)
        lines.append(text[: blank if blank > 0 else end])
        text = text[blank + 1 if blank > 0 else end :]
    return [*lines, text]


def _padded(text: str, width: int, *, to_the_right: bool) -> str:
    blanks = " " * (width - cells(text))
    return blanks + text if to_the_right else text + blanks
