"""Other things in the journal's place: every command explains the error, creates nothing and pays for nothing."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from picwish_watchd.cli.main import main
from picwish_watchd.errors import JournalError
from picwish_watchd.job import State
from tests.support import fork_server
from tests.support.harness import KEY, Harness

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
    """Put something that is no journal in the journal's place."""
    with ExitStack() as stack:
        if kind == "folder":
            place.mkdir()
        elif kind == "pipe":
            os.mkfifo(place)
            # A program that opens the FIFO anyway must not hang.
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
    """Run a command and return its exit code and output; `run` configures logging, so it gets its own process."""
    if command[0] == "run":
        process = fork_server.run_fork(*command, "-c", file, environ=dict(os.environ))
        return process.returncode, process.stdout + process.stderr
    capsys.readouterr()
    code = main([*command, "-c", file])
    return code, "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("kind", "message"),
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
    harness: Harness, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str, message: str
) -> None:
    monkeypatch.setenv("PICWISH_API_KEY", KEY)
    harness.drop_file("a.jpg")
    with create_obstacle(kind, harness.root / "place") as place:
        harness.top_level["journal"] = str(place)
        file = str(harness.write_config())
        before = {*os.listdir(harness.root), *os.listdir(place.parent)}
        for command in COMMANDS:
            code, output = run_command(command, file, capsys)
            assert (command, code) == (command, 74)
            assert message in output, (command, output)
        assert {*os.listdir(harness.root), *os.listdir(place.parent)} == before
    assert not harness.count_creates()


async def test_a_linked_journal_on_an_absent_disk_is_never_replaced(
    harness: Harness,
) -> None:
    """The journal was moved to another disk with its companion files, and a link to it was left."""
    harness.drop_file("a.jpg")
    assert await harness.run_once() == 0
    disk = harness.root / "disk"
    harness.journal.parent.rename(disk)
    harness.journal.parent.mkdir()
    harness.journal.symlink_to(disk / "journal.db")
    disk.rename(harness.root / "away")
    with pytest.raises(JournalError, match=r"is a link to .*: No such file or directory"):
        await harness.run_once()
    assert harness.journal.is_symlink()
    (harness.root / "away").rename(disk)
    assert await harness.run_once() == 0
    assert [job.state for job in harness.jobs()] == [State.DONE]
    assert harness.count_creates() == 1
