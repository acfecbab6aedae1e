"""What can stand in the journal's place and is none: every command says so in words, and nothing is made or bought."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from picwish_watchd.cli.main import main
from picwish_watchd.errors import JournalError
from picwish_watchd.job import State
from tests.support import forks
from tests.support.house import KEY, Harness

COMMANDS = (
    ("run", "--once"),
    ("check",),
    ("status",),
    ("jobs",),
    ("show", "1"),
    ("why", "a.jpg"),
    ("plan",),
    ("retry", "1"),
    ("retry", "--state", "failed"),
    ("approve", "scans"),
    ("spend",),
    ("export", "--csv"),
    ("vacuum",),
)


@contextmanager
def create_obstacle(kind: str, place: Path) -> Iterator[Path]:
    """Something that is no journal."""
    with ExitStack() as stack:
        if kind == "folder":
            place.mkdir()
        elif kind == "pipe":
            os.mkfifo(place)
            # who opens it all the same does not hang
            stack.callback(os.close, os.open(place, os.O_RDWR))
        elif kind == "socket":
            stack.enter_context(socket.socket(socket.AF_UNIX)).bind(os.fspath(place))
        elif kind == "link that leads nowhere":
            place.symlink_to("disk/journal.db")
        elif kind == "link that leads to itself":
            place.symlink_to(place)
        elif kind == "name that is too long":
            place = place.with_name("x" * 256)
        yield {"device": Path("/dev/null"), "root folder": Path("/")}.get(kind, place)


def run_command(command: tuple[str, ...], file: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code and what was said; of `run` by another process, for it would set up the log of this one."""
    if command[0] == "run":
        done = forks.run_fork(*command, "-c", file, environ=dict(os.environ))
        return done.returncode, done.stdout + done.stderr
    capsys.readouterr()
    code = main([*command, "-c", file])
    return code, "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("root folder", "cannot be opened: it is a folder"),
        ("folder", "cannot be opened: it is a folder"),
        ("pipe", "cannot be opened: it is a pipe"),
        ("socket", "cannot be opened: it is a socket"),
        ("device", "cannot be opened: it is a device"),
        ("link that leads nowhere", "is a link to disk/journal.db"),
        ("link that leads to itself", "is a link to"),
        ("name that is too long", "File name too long"),
    ],
)
def test_every_command_reports_what_is_in_the_journals_place(
    house: Harness, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str, told: str
) -> None:
    monkeypatch.setenv("PICWISH_API_KEY", KEY)
    house.drop_file("a.jpg")
    with create_obstacle(kind, house.root / "place") as place:
        house.top_level["journal"] = str(place)
        file = str(house.write_config())
        before = {*os.listdir(house.root), *os.listdir(place.parent)}
        for command in COMMANDS:
            code, said = run_command(command, file, capsys)
            assert (command, code) == (command, 74)
            assert told in said, (command, said)
        assert {*os.listdir(house.root), *os.listdir(place.parent)} == before
    assert not house.count_creates()


async def test_a_linked_journal_on_an_absent_disk_is_never_replaced(
    house: Harness,
) -> None:
    """It was moved to another disk with all that belongs to it, and a link put into its place."""
    house.drop_file("a.jpg")
    assert await house.run_once() == 0
    disk = house.root / "disk"
    house.journal.parent.rename(disk)
    house.journal.parent.mkdir()
    house.journal.symlink_to(disk / "journal.db")
    disk.rename(house.root / "away")
    with pytest.raises(JournalError, match=r"is a link to .*: No such file or directory"):
        await house.run_once()
    assert house.journal.is_symlink()
    (house.root / "away").rename(disk)
    assert await house.run_once() == 0
    assert [job.state for job in house.jobs()] == [State.DONE]
    assert house.count_creates() == 1
