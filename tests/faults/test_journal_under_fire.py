"""The daemon as a process while its journal is damaged, cut, taken away, locked, or out of room.

Whatever happens to it: words and an exit code, never a silent new journal, and no POST without a committed intent.
"""

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from picwish_watchd.clock import Clock
from picwish_watchd.job import State
from picwish_watchd.journal.writer import Journal
from picwish_watchd.simulator import Simulator
from tests.support import forks
from tests.support.house import FAST, KEY, House, Process, until

pytestmark = pytest.mark.untraced

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount file systems")
_STARTED: list[Process] = []


@pytest.fixture
async def struck(tmp_path: Path) -> AsyncIterator[House]:
    """A house whose journal is struck; what the laws say of an unreadable journal is left to the tests."""
    async with Simulator(FAST) as simulator:
        yield House(tmp_path, simulator, top={"min_free": 1})
        while _STARTED:
            child = _STARTED.pop().child
            child.kill()
            child.wait()


def start(house: House, *arguments: str) -> Process:
    """A daemon that ends with the test."""
    _STARTED.append(Process(house, arguments).start())
    return _STARTED[-1]


def companion(house: House, suffix: str) -> Path:
    return house.journal.with_name(house.journal.name + suffix)


def check(house: House) -> tuple[int, str]:
    """What `picwish-watchd check` says of the journal."""
    told = forks.run("check", "-c", str(house.root / "watchd.yaml"), environ={**os.environ, "PICWISH_API_KEY": KEY})
    assert "Traceback" not in told.stderr
    return told.returncode, "\n".join(line for line in told.stdout.splitlines() if "journal" in line)


def intents(journal: Path) -> int:
    """Intents that are committed, whoever reads them."""
    with closing(sqlite3.connect(journal)) as connection:
        return int(connection.execute("SELECT count(*) FROM event WHERE state = 'submitting'").fetchone()[0])


def assert_each_post_was_intended(house: House) -> None:
    """No create reached PicWish that the journal does not know of, and none was paid twice."""
    assert house.creates() <= intents(house.journal)
    assert len({charge.sha256 for charge in house.simulator.ledger}) == len(house.simulator.ledger)


def words(process: Process) -> str:
    text = process.errors.read_text()
    assert "Traceback" not in text
    assert "which is a bug" not in text
    return text


def logged(process: Process, name: str) -> list[dict[str, Any]]:
    return [event for event in process.log() if event["event"] == name]


async def lived(house: House, images: int, *, killed: bool = False) -> None:
    """So many images were done; then the daemon ended, well or not."""
    for number in range(images):
        house.drop(f"{number}.jpg", seed=number)
    process = start(house)
    await until(lambda: house.journal.exists() and len(house.jobs(State.DONE)) == images)
    await process.stop(signal.SIGKILL if killed else signal.SIGTERM)


async def working(house: House, images: int) -> Process:
    """A daemon that has done so many images and runs on."""
    for number in range(images):
        house.drop(f"{number}.jpg", seed=number)
    process = start(house)
    await until(lambda: house.journal.exists() and len(house.jobs(State.DONE)) == images)
    return process


def fill_pages(path: Path) -> None:
    size = path.stat().st_size
    subprocess.run(
        ["dd", "if=/dev/urandom", f"of={path}", "bs=4096", "seek=1", f"count={size // 4096 - 1}", "conv=notrunc"],
        check=True, capture_output=True,
    )  # fmt: skip


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_to_nothing(path: Path) -> None:
    os.truncate(path, 0)


def make_newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def replace_by_anothers(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE contacts (name TEXT)")


@pytest.mark.parametrize(
    ("strike", "said"),
    [
        (fill_pages, "the journal is damaged"),
        (cut_in_half, "the journal is damaged"),
        (cut_to_nothing, "cut off"),
        (make_newer, "written by a newer picwish-watchd (schema 99"),
        (replace_by_anothers, "is not a journal of picwish-watchd"),
    ],
)
async def test_a_journal_struck_while_nobody_ran_ends_the_next_start_in_words(
    struck: House, strike: Callable[[Path], None], said: str
) -> None:
    await lived(struck, 3)
    posts = struck.creates()
    strike(struck.journal)
    before = struck.journal.read_bytes()
    struck.drop("new.jpg", seed=77)
    process = start(struck)
    assert await process.ended() == 74
    assert said in words(process)
    assert struck.journal.read_bytes() == before
    code, told = check(struck)
    assert (code, "FAIL" in told) == (74, True), told
    assert struck.creates() == posts == 3


@pytest.mark.parametrize("strike", [fill_pages, cut_to_nothing])
async def test_a_journal_struck_while_the_daemon_runs_buys_nothing_twice(
    struck: House, strike: Callable[[Path], None]
) -> None:
    await lived(struck, 12)
    process = await working(struck, 12)
    strike(struck.journal)
    for number in range(3):
        struck.drop(f"new{number}.jpg", seed=70 + number)
    # what it has in memory may carry it on; then the end folds that into the broken file
    await until(lambda: process.child.poll() is not None or len(logged(process, "job.done")) == 15)
    code = await process.ended() if process.child.poll() is not None else await process.stop()
    assert code in (0, 74), words(process)
    posts = struck.creates()
    assert len(logged(process, "task.accepted")) == posts, "whatever was bought is at least in the log"
    again = start(struck, "--once")
    assert await again.ended() == 74
    assert "picwish-watchd: the journal" in words(again)
    assert struck.creates() == posts
    assert check(struck)[0] == 74


def delete(path: Path) -> None:
    path.unlink()


def replace_by_a_copy(path: Path) -> None:
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    copy.replace(path)


@pytest.mark.parametrize("strike", [delete, replace_by_a_copy])
async def test_a_journal_taken_away_from_a_running_daemon_ends_it_before_anything_is_bought(
    struck: House, strike: Callable[[Path], None]
) -> None:
    process = await working(struck, 2)
    strike(struck.journal)
    struck.drop("new.jpg", seed=77)
    assert await process.ended() == 74
    assert "was moved, replaced or deleted while picwish-watchd was running" in words(process)
    assert struck.creates() == 2


async def test_a_wal_that_was_removed_after_a_kill_is_missed(struck: House) -> None:
    await lived(struck, 2, killed=True)
    assert companion(struck, "-wal").stat().st_size > 0
    companion(struck, "-wal").unlink()
    for _ in range(2):  # asking does not make it forget
        process = start(struck)
        assert await process.ended() == 74
        assert "lost its companion" in words(process)
        code, told = check(struck)
        assert (code, "lost its companion" in told) == (74, True)
    assert not companion(struck, "-wal").exists()
    assert struck.creates() == 2
    companion(struck, "-shm").unlink()  # a person's word: begin with what is left


async def test_both_companions_that_were_removed_after_a_kill_are_missed(struck: House) -> None:
    await lived(struck, 2, killed=True)
    companion(struck, "-wal").unlink()
    companion(struck, "-shm").unlink()
    for _ in range(2):
        process = start(struck)
        assert await process.ended() == 74
        assert "than what was last written to it" in words(process)
        code, told = check(struck)
        assert (code, "than what was last written to it" in told) == (74, True)
    assert struck.creates() == 2
    companion(struck, ".write").unlink()  # a person's word: begin with what is left


@pytest.fixture
def own_mount(struck: House) -> Iterator[Callable[..., None]]:
    """Mounts something over the journal's folder until the test ends."""
    folder = struck.journal.parent
    folder.mkdir(mode=0o700)
    mounted = 0

    def mount(*arguments: str) -> None:
        nonlocal mounted
        told = subprocess.run(["mount", *arguments, str(folder)], capture_output=True, text=True, check=False)
        if told.returncode != 0:
            pytest.skip(f"may not mount: {told.stderr.strip()}")
        mounted += "remount" not in " ".join(arguments)

    yield mount
    for _ in range(mounted):
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_up(folder: Path) -> Path:
    """Leaves no byte free."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while file.write(b"." * size) == size:
                    pass
            except OSError:
                continue
    return ballast


@as_root
async def test_a_full_disk_makes_the_daemon_wait_and_room_makes_it_go_on(
    struck: House, own_mount: Callable[..., None]
) -> None:
    own_mount("-t", "tmpfs", "-o", "size=3m,mode=0700", "tmpfs")
    process = await working(struck, 1)
    struck.simulator.settings = replace(struck.simulator.settings, latency=0.5)
    struck.drop("sent.jpg", seed=50)
    await until(lambda: "submitting" in [job.state for job in struck.jobs()])
    ballast = fill_up(struck.journal.parent)
    struck.simulator.settings = FAST
    for number in range(12):
        struck.drop(f"new{number}.jpg", seed=60 + number)
    await until(lambda: logged(process, "journal.waits"))
    await asyncio.sleep(1.5)
    assert process.child.poll() is None, words(process)
    assert_each_post_was_intended(struck)
    ballast.unlink()
    await until(lambda: len(struck.jobs(State.DONE)) == 14)
    assert await process.stop() == 0
    assert struck.creates() == intents(struck.journal) == 14
    words(process)
    struck.check_laws()


@as_root
async def test_a_read_only_journal_ends_the_start_in_words(struck: House, own_mount: Callable[..., None]) -> None:
    own_mount("-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs")
    await lived(struck, 1)
    own_mount("-o", "remount,ro")
    struck.drop("new.jpg", seed=70)
    process = start(struck)
    assert await process.ended() == 74
    assert "Read-only file system" in words(process)
    code, told = check(struck)
    assert code == 1
    assert "FAIL  folder of the journal" in told
    assert struck.creates() == 1


_FOREIGN = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(sys.argv[2])
connection.execute("SELECT count(*) FROM job").fetchone()
print("held", flush=True)
time.sleep(float(sys.argv[3]))
"""


async def foreign(house: House, begin: str, seconds: float) -> "subprocess.Popen[bytes]":
    """Another program that has the journal open in a transaction."""
    command = [sys.executable, "-c", _FOREIGN, str(house.journal), begin, str(seconds)]
    program = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert program.stdout is not None
    assert await asyncio.to_thread(program.stdout.readline) == b"held\n"
    return program


async def test_a_foreign_writer_is_waited_for_and_nothing_is_lost(struck: House) -> None:
    process = await working(struck, 1)
    struck.simulator.settings = replace(struck.simulator.settings, latency=0.5)
    struck.drop("sent.jpg", seed=50)
    await until(lambda: "submitting" in [job.state for job in struck.jobs()])
    with await foreign(struck, "BEGIN IMMEDIATE", 7.0) as program:
        struck.simulator.settings = FAST
        for number in range(3):
            struck.drop(f"new{number}.jpg", seed=60 + number)
        await until(lambda: logged(process, "journal.waits"))
        assert_each_post_was_intended(struck)
        assert program.poll() is None
        assert "another program keeps the journal locked" in words(process)
        program.communicate()
    await until(lambda: len(struck.jobs(State.DONE)) == 5)
    assert await process.stop() == 0
    assert struck.creates() == intents(struck.journal) == 5
    assert check(struck)[0] == 0
    struck.check_laws()


async def test_a_foreign_reader_makes_the_wal_grow_only_while_it_reads(struck: House) -> None:
    process = await working(struck, 1)
    wal = companion(struck, "-wal")
    with await foreign(struck, "BEGIN", 60.0) as program:
        beside = Journal.open_beside(struck.journal, Clock())
        for _ in range(200):
            beside.publish_report("x" * 120_000)
        struck.drop("beside.jpg", seed=50)
        await until(lambda: len(struck.jobs(State.DONE)) == 2)
        assert wal.stat().st_size > 20e6
        program.kill()
        program.communicate()
    beside.publish_report("{}")
    beside.close()
    struck.drop("after.jpg", seed=51)
    await until(lambda: len(struck.jobs(State.DONE)) == 3)
    assert wal.stat().st_size <= 16 * 2**20
    assert await process.stop() == 0
    assert not wal.exists()
    assert struck.creates() == intents(struck.journal) == 3
    struck.check_laws()
