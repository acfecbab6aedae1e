"""The daemon as a process while its journal is damaged, truncated, removed, locked, or out of disk space.

Whatever happens, it ends with a message and an exit code. It never creates a new journal silently, and never sends a
POST without a committed intent.
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
from tests.support import fork_server
from tests.support.harness import FAST_SETTINGS, KEY, DaemonProcess, Harness, wait_until

pytestmark = pytest.mark.untraced

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount file systems")
_running_processes: list[DaemonProcess] = []


@pytest.fixture
async def damaged_harness(tmp_path: Path) -> AsyncIterator[Harness]:
    """Yield a harness without the final check of the laws, because its journal may be unreadable."""
    async with Simulator(FAST_SETTINGS) as simulator:
        yield Harness(tmp_path, simulator, top_level={"min_free": 1})
        while _running_processes:
            child = _running_processes.pop().child
            child.kill()
            child.wait()


def start_daemon(harness: Harness, *arguments: str) -> DaemonProcess:
    """Run a daemon that is killed at the end of the test."""
    _running_processes.append(DaemonProcess(harness, arguments).start())
    return _running_processes[-1]


def companion_file(harness: Harness, suffix: str) -> Path:
    return harness.journal.with_name(harness.journal.name + suffix)


def run_check(harness: Harness) -> tuple[int, str]:
    """Run `picwish-watchd check` and return the finished process."""
    process = fork_server.run_fork(
        "check", "-c", str(harness.root / "watchd.yaml"), environ={**os.environ, "PICWISH_API_KEY": KEY}
    )
    assert "Traceback" not in process.stderr
    return process.returncode, "\n".join(line for line in process.stdout.splitlines() if "journal" in line)


def read_intents(journal: Path) -> int:
    """Return the committed intents, read with sqlite3 alone."""
    with closing(sqlite3.connect(journal)) as connection:
        return int(connection.execute("SELECT count(*) FROM event WHERE state = 'submitting'").fetchone()[0])


def assert_each_post_was_intended(harness: Harness) -> None:
    """Assert that the journal has an intent for each create that reached PicWish, and that no image was paid twice."""
    assert harness.count_creates() <= read_intents(harness.journal)
    assert len({charge.sha256 for charge in harness.simulator.ledger}) == len(harness.simulator.ledger)


def read_stderr(process: DaemonProcess) -> str:
    text = process.errors.read_text()
    assert "Traceback" not in text
    assert "which is a bug" not in text
    return text


def logged_events(process: DaemonProcess, name: str) -> list[dict[str, Any]]:
    return [event for event in process.logged_events() if event["event"] == name]


async def run_until_done(harness: Harness, images: int, *, killed: bool = False) -> None:
    """Run a daemon until some images are done and stop it, whatever its exit code is."""
    for number in range(images):
        harness.drop_file(f"{number}.jpg", seed=number)
    process = start_daemon(harness)
    await wait_until(lambda: harness.journal.exists() and len(harness.jobs(State.DONE)) == images)
    await process.stop(signal.SIGKILL if killed else signal.SIGTERM)


async def start_with_done_images(harness: Harness, images: int) -> DaemonProcess:
    """Start a daemon that has finished some images and goes on running."""
    for number in range(images):
        harness.drop_file(f"{number}.jpg", seed=number)
    process = start_daemon(harness)
    await wait_until(lambda: harness.journal.exists() and len(harness.jobs(State.DONE)) == images)
    return process


def fill_pages(path: Path) -> None:
    size = path.stat().st_size
    subprocess.run(
        ["dd", "if=/dev/urandom", f"of={path}", "bs=4096", "seek=1", f"count={size // 4096 - 1}", "conv=notrunc"],
        check=True,
        capture_output=True,
    )


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_to_nothing(path: Path) -> None:
    os.truncate(path, 0)


def make_newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def replace_with_foreign_journal(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE contacts (name TEXT)")


@pytest.mark.parametrize(
    ("strike", "message"),
    [
        (fill_pages, "the journal is damaged"),
        (cut_in_half, "the journal is damaged"),
        (cut_to_nothing, "cut off"),
        (make_newer, "written by a newer picwish-watchd (schema 99"),
        (replace_with_foreign_journal, "is not a journal of picwish-watchd"),
    ],
)
async def test_a_journal_damaged_between_runs_is_refused_with_a_message(
    damaged_harness: Harness, strike: Callable[[Path], None], message: str
) -> None:
    await run_until_done(damaged_harness, 3)
    posts = damaged_harness.count_creates()
    strike(damaged_harness.journal)
    before = damaged_harness.journal.read_bytes()
    damaged_harness.drop_file("new.jpg", seed=77)
    process = start_daemon(damaged_harness)
    assert await process.wait_for_exit() == 74
    assert message in read_stderr(process)
    assert damaged_harness.journal.read_bytes() == before
    code, output = run_check(damaged_harness)
    assert (code, "FAIL" in output) == (74, True), output
    assert damaged_harness.count_creates() == posts == 3


@pytest.mark.parametrize("strike", [fill_pages, cut_to_nothing])
async def test_a_journal_damaged_while_the_daemon_runs_pays_nothing_twice(
    damaged_harness: Harness, strike: Callable[[Path], None]
) -> None:
    await run_until_done(damaged_harness, 12)
    process = await start_with_done_images(damaged_harness, 12)
    strike(damaged_harness.journal)
    for number in range(3):
        damaged_harness.drop_file(f"new{number}.jpg", seed=70 + number)
    # The cached pages may keep it running; its end then writes them into the damaged file.
    await wait_until(lambda: process.child.poll() is not None or len(logged_events(process, "job.done")) == 15)
    code = await process.wait_for_exit() if process.child.poll() is not None else await process.stop()
    assert code in (0, 74), read_stderr(process)
    posts = damaged_harness.count_creates()
    assert len(logged_events(process, "task.accepted")) == posts, "each paid image is at least in the log"
    again = start_daemon(damaged_harness, "--once")
    assert await again.wait_for_exit() == 74
    assert "picwish-watchd: the journal" in read_stderr(again)
    assert damaged_harness.count_creates() == posts
    assert run_check(damaged_harness)[0] == 74


def delete(path: Path) -> None:
    path.unlink()


def replace_with_copy(path: Path) -> None:
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    copy.replace(path)


@pytest.mark.parametrize("strike", [delete, replace_with_copy])
async def test_removing_the_journal_ends_a_running_daemon_before_it_pays(
    damaged_harness: Harness, strike: Callable[[Path], None]
) -> None:
    process = await start_with_done_images(damaged_harness, 2)
    strike(damaged_harness.journal)
    damaged_harness.drop_file("new.jpg", seed=77)
    assert await process.wait_for_exit() == 74
    assert "was moved, replaced or deleted while picwish-watchd was running" in read_stderr(process)
    assert damaged_harness.count_creates() == 2


async def test_a_wal_removed_after_a_kill_is_detected(damaged_harness: Harness) -> None:
    await run_until_done(damaged_harness, 2, killed=True)
    assert companion_file(damaged_harness, "-wal").stat().st_size > 0
    companion_file(damaged_harness, "-wal").unlink()
    # A check must not change the finding.
    for _ in range(2):
        process = start_daemon(damaged_harness)
        assert await process.wait_for_exit() == 74
        assert "lost its companion" in read_stderr(process)
        code, output = run_check(damaged_harness)
        assert (code, "lost its companion" in output) == (74, True)
    assert not companion_file(damaged_harness, "-wal").exists()
    assert damaged_harness.count_creates() == 2
    # An administrator decides to start with what is left.
    companion_file(damaged_harness, "-shm").unlink()


async def test_removing_both_wal_and_shm_after_a_kill_is_detected(damaged_harness: Harness) -> None:
    await run_until_done(damaged_harness, 2, killed=True)
    companion_file(damaged_harness, "-wal").unlink()
    companion_file(damaged_harness, "-shm").unlink()
    for _ in range(2):
        process = start_daemon(damaged_harness)
        assert await process.wait_for_exit() == 74
        assert "than what was last written to it" in read_stderr(process)
        code, output = run_check(damaged_harness)
        assert (code, "than what was last written to it" in output) == (74, True)
    assert damaged_harness.count_creates() == 2
    # An administrator decides to start with what is left.
    companion_file(damaged_harness, ".write").unlink()


@pytest.fixture
def mount_over_journal(damaged_harness: Harness) -> Iterator[Callable[..., None]]:
    """Mount a file system over the journal's folder until the test ends."""
    folder = damaged_harness.journal.parent
    folder.mkdir(mode=0o700)
    mounted = 0

    def mount(*arguments: str) -> None:
        nonlocal mounted
        process = subprocess.run(["mount", *arguments, str(folder)], capture_output=True, text=True, check=False)
        if process.returncode != 0:
            pytest.skip(f"may not mount: {process.stderr.strip()}")
        mounted += "remount" not in " ".join(arguments)

    yield mount
    for _ in range(mounted):
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_disk(folder: Path) -> Path:
    """Fill the disk to the last byte."""
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
    damaged_harness: Harness, mount_over_journal: Callable[..., None]
) -> None:
    mount_over_journal("-t", "tmpfs", "-o", "size=3m,mode=0700", "tmpfs")
    process = await start_with_done_images(damaged_harness, 1)
    damaged_harness.simulator.settings = replace(damaged_harness.simulator.settings, latency=0.5)
    damaged_harness.drop_file("sent.jpg", seed=50)
    await wait_until(lambda: "submitting" in [job.state for job in damaged_harness.jobs()])
    ballast = fill_disk(damaged_harness.journal.parent)
    damaged_harness.simulator.settings = FAST_SETTINGS
    for number in range(12):
        damaged_harness.drop_file(f"new{number}.jpg", seed=60 + number)
    await wait_until(lambda: logged_events(process, "journal.waits"))
    await asyncio.sleep(1.5)
    assert process.child.poll() is None, read_stderr(process)
    assert_each_post_was_intended(damaged_harness)
    ballast.unlink()
    await wait_until(lambda: len(damaged_harness.jobs(State.DONE)) == 14)
    assert await process.stop() == 0
    assert damaged_harness.count_creates() == read_intents(damaged_harness.journal) == 14
    read_stderr(process)
    damaged_harness.check_laws()


@as_root
async def test_a_read_only_journal_is_refused_with_a_message(
    damaged_harness: Harness, mount_over_journal: Callable[..., None]
) -> None:
    mount_over_journal("-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs")
    await run_until_done(damaged_harness, 1)
    mount_over_journal("-o", "remount,ro")
    damaged_harness.drop_file("new.jpg", seed=70)
    process = start_daemon(damaged_harness)
    assert await process.wait_for_exit() == 74
    assert "Read-only file system" in read_stderr(process)
    code, output = run_check(damaged_harness)
    assert code == 1
    assert "FAIL  folder of the journal" in output
    assert damaged_harness.count_creates() == 1


_FOREIGN_PROGRAM = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(sys.argv[2])
connection.execute("SELECT count(*) FROM job").fetchone()
print("held", flush=True)
time.sleep(float(sys.argv[3]))
"""


async def foreign_transaction(harness: Harness, begin: str, seconds: float) -> "subprocess.Popen[bytes]":
    """Keep the journal locked in a transaction of another program."""
    command = [sys.executable, "-c", _FOREIGN_PROGRAM, str(harness.journal), begin, str(seconds)]
    program = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert program.stdout is not None
    assert await asyncio.to_thread(program.stdout.readline) == b"held\n"
    return program


async def test_a_foreign_writer_is_waited_for_and_nothing_is_lost(damaged_harness: Harness) -> None:
    process = await start_with_done_images(damaged_harness, 1)
    damaged_harness.simulator.settings = replace(damaged_harness.simulator.settings, latency=0.5)
    damaged_harness.drop_file("sent.jpg", seed=50)
    await wait_until(lambda: "submitting" in [job.state for job in damaged_harness.jobs()])
    with await foreign_transaction(damaged_harness, "BEGIN IMMEDIATE", 7.0) as program:
        damaged_harness.simulator.settings = FAST_SETTINGS
        for number in range(3):
            damaged_harness.drop_file(f"new{number}.jpg", seed=60 + number)
        await wait_until(lambda: logged_events(process, "journal.waits"))
        assert_each_post_was_intended(damaged_harness)
        assert program.poll() is None
        assert "another program keeps the journal locked" in read_stderr(process)
        program.communicate()
    await wait_until(lambda: len(damaged_harness.jobs(State.DONE)) == 5)
    assert await process.stop() == 0
    assert damaged_harness.count_creates() == read_intents(damaged_harness.journal) == 5
    assert run_check(damaged_harness)[0] == 0
    damaged_harness.check_laws()


async def test_a_foreign_reader_makes_the_wal_grow_only_while_it_reads(damaged_harness: Harness) -> None:
    process = await start_with_done_images(damaged_harness, 1)
    wal = companion_file(damaged_harness, "-wal")
    with await foreign_transaction(damaged_harness, "BEGIN", 60.0) as program:
        beside = Journal.open_existing(damaged_harness.journal, Clock())
        for _ in range(200):
            beside.publish_report("x" * 120_000)
        damaged_harness.drop_file("beside.jpg", seed=50)
        await wait_until(lambda: len(damaged_harness.jobs(State.DONE)) == 2)
        assert wal.stat().st_size > 20e6
        program.kill()
        program.communicate()
    beside.publish_report("{}")
    beside.close()
    damaged_harness.drop_file("after.jpg", seed=51)
    await wait_until(lambda: len(damaged_harness.jobs(State.DONE)) == 3)
    assert wal.stat().st_size <= 16 * 2**20
    assert await process.stop() == 0
    assert not wal.exists()
    assert damaged_harness.count_creates() == read_intents(damaged_harness.journal) == 3
    damaged_harness.check_laws()
