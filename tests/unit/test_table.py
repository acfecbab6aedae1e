"""Tables as people see them."""

import os
import pty

import pytest

from picwish_watchd.cli.table import cells, fitting, fold, print_table


def test_without_a_terminal_a_line_stays_a_line_and_nothing_trails(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("scans", 5, None), ("x" * 300, 1000, "a  b")]
    print_table(("RULE", "JOBS", "NOTE"), rows, right=("JOBS",))
    assert capsys.readouterr().out.splitlines() == [
        "RULE" + " " * 296 + "  JOBS  NOTE",
        "scans" + " " * 295 + "     5",
        "x" * 300 + "  1000  a  b",
    ]


def test_columns_stand_in_line_whatever_letters_they_hold(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("A", "B"), [("東京", 1), ("e\u0301t\u00e9", 2), ("abcd", 3)])
    assert capsys.readouterr().out.splitlines() == ["A     B", "東京  1", "e\u0301t\u00e9   2", "abcd  3"]


def test_what_controls_a_terminal_is_made_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("A",), [("a\x1b[2Jb\nc",)])
    assert "\x1b" not in (out := capsys.readouterr().out)
    assert len(out.splitlines()) == 2


def test_a_table_of_nothing_is_its_headings(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("A", "B"), [])
    assert capsys.readouterr().out == "A  B\n"


def test_the_widest_columns_give_way_and_none_becomes_unreadable() -> None:
    assert fitting([5, 40, 60], 200) == [5, 40, 60]
    assert fitting([5, 40, 60], 69) == [5, 30, 30]
    assert fitting([5, 40, 60], 10) == [5, 8, 8]
    assert fitting([], 10) == []


def test_a_text_is_folded_at_a_blank_or_where_it_must_and_nothing_of_it_is_lost() -> None:
    assert fold("short", 10) == ["short"]
    assert fold("", 10) == [""]
    assert fold("one two three four", 10) == ["one two", "three four"]
    assert fold("/srv/nas/scans/inbox", 8) == ["/srv/nas", "/scans/i", "nbox"]
    assert fold("東京都千代田区", 5) == ["東京", "都千", "代田", "区"]
    assert all(cells(line) <= 5 for line in fold("東京都 千代 田区 a", 5))


def read_until(terminal: int, end: bytes) -> str:
    read = b""
    while not read.endswith(end):
        read += os.read(terminal, 4096)
    return read.removesuffix(end).decode()


def test_on_a_terminal_lines_keep_to_its_width(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as patched:
        patched.setattr("sys.stdout", terminal)
        print_table(("RULE", "INBOX"), [("scans", "/srv/nas/" + "deep/" * 12)])
        print("the end", file=terminal, flush=True)
        told = read_until(ours, b"the end\r\n").replace("\r", "").splitlines()
    os.close(ours)
    assert told[0] == "\x1b[1mRULE   INBOX\x1b[0m"
    assert max(map(len, told[1:])) == 40
    assert "".join(line[7:] for line in told[1:]) == "/srv/nas/" + "deep/" * 12
