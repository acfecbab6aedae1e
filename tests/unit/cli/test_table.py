"""Tables: aligned on a terminal, easy to grep elsewhere."""

import pytest

from picwish_watchd.cli.table import print_table


def test_without_a_terminal_a_row_is_a_line_however_long_and_names_are_harmless(
    capsys: pytest.CaptureFixture[str],
) -> None:
    long = "/srv/nas/" + "a" * 300
    print_table(("PATH", "JOBS"), [(long, 5), ("evil\n\x1b[2J", None)], right=("JOBS",))
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "PATH" + " " * (len(long) - 4) + " JOBS"
    assert second == f"{long}    5"
    assert third == r"evil\n\x1b[2J"
