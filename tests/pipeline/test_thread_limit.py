"""Where the system allows no more threads (TasksMax=, ulimit -u), work waits and no job is held."""

import asyncio
import os
import threading
from dataclasses import dataclass

import pytest

from picwish_watchd.daemon.daemon import Daemon
from picwish_watchd.errors import WatchdError
from picwish_watchd.job import State
from picwish_watchd.runtime import keyed_executor
from tests.support.harness import KEY, DaemonProcess, Harness, wait_until


@dataclass
class ThreadLimit:
    """A limit on further threads; None means no limit."""

    available: int | None = None
    refused: int = 0


@pytest.fixture
def thread_limit(monkeypatch: pytest.MonkeyPatch) -> ThreadLimit:
    limit, begin = ThreadLimit(), threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if limit.available == 0:
            limit.refused += 1
            raise RuntimeError("can't start new thread")
        if limit.available is not None:
            limit.available -= 1
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(keyed_executor, "_RETRY_DELAY", 0.05)
    return limit


async def test_files_wait_for_a_thread_and_are_processed(harness: Harness, thread_limit: ThreadLimit) -> None:
    harness.rule = {"on_success": "move", "archive": "archive", "rescan_interval": "100ms"}
    daemon = Daemon(harness.load_config(), KEY)
    running = asyncio.create_task(daemon.run())
    await wait_until(lambda: '"watching": true' in harness.daemon_report())
    for granted in (0, 1, None):
        thread_limit.available = granted
        refused = thread_limit.refused
        harness.drop_file(f"{granted}.jpg", seed=9 if granted is None else granted)
        # The loop awaits this before the next pass.
        await wait_until(lambda: thread_limit.available is None or thread_limit.refused > refused + 2)  # noqa: B023
        assert not harness.jobs(State.HELD)
    await wait_until(lambda: len(harness.jobs(State.DONE)) == 3)
    daemon.stop()
    assert await running == 0
    assert harness.count_creates() == 3


@pytest.mark.parametrize(("granted", "event"), [(4, "no thread to watch it"), (5, '"observer": "polling"')])
async def test_without_threads_an_inbox_waits_for_a_watcher_or_polls(
    harness: Harness, thread_limit: ThreadLimit, granted: int, event: str
) -> None:
    harness.drop_file("a.jpg")
    daemon = Daemon(harness.load_config(), KEY)
    thread_limit.available = granted
    running = asyncio.create_task(daemon.run())
    await wait_until(lambda: event in harness.daemon_report())
    thread_limit.available = None
    await wait_until(lambda: harness.jobs(State.DONE))
    daemon.stop()
    assert await running == 0


async def test_too_few_threads_at_startup_are_reported(harness: Harness, thread_limit: ThreadLimit) -> None:
    daemon = Daemon(harness.load_config(), KEY)
    thread_limit.available = 2
    with pytest.raises(WatchdError, match="too few threads") as error:
        await daemon.run()
    thread_limit.available = None
    assert error.value.hint is not None
    assert "TasksMax" in error.value.hint


_REFUSE_THREADS_WHILE_FILE_EXISTS = """import os, threading
begin = threading.Thread.start
def start(thread):
    if os.path.exists({!r}):
        raise RuntimeError("can't start new thread")
    begin(thread)
threading.Thread.start = start
"""


async def test_a_stop_without_threads_ends_cleanly_and_loses_nothing(harness: Harness) -> None:
    none = harness.root / "none"
    (harness.root / "strange").mkdir()
    (harness.root / "strange" / "sitecustomize.py").write_text(_REFUSE_THREADS_WHILE_FILE_EXISTS.format(str(none)))
    path = os.pathsep.join((str(harness.root / "strange"), os.environ.get("PYTHONPATH", "")))
    process = DaemonProcess(harness, environ={"PYTHONPATH": path}, fresh=True).start()
    await wait_until(lambda: '"watching": true' in harness.daemon_report())
    none.touch()
    harness.drop_file("a.jpg")
    await wait_until(lambda: any(line["event"] == "threads.none" for line in process.logged_events()))
    assert await process.stop() == 0
    assert await harness.run_once() == 0
    assert harness.job("a.jpg").state is State.DONE
