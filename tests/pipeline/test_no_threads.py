"""A system that grants no more threads (TasksMax=, ulimit -u): what needs one waits, and nothing is held."""

import asyncio
import os
import threading
from dataclasses import dataclass

import pytest

from picwish_watchd.daemon.daemon import Daemon
from picwish_watchd.errors import WatchdError
from picwish_watchd.job import State
from picwish_watchd.runtime import keyed_executor
from tests.support.house import KEY, House, Process, until


@dataclass
class Limit:
    """How many more threads are granted; None: any number."""

    left: int | None = None
    refused: int = 0


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Limit:
    limit, begin = Limit(), threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if limit.left == 0:
            limit.refused += 1
            raise RuntimeError("can't start new thread")
        if limit.left is not None:
            limit.left -= 1
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(keyed_executor, "_AGAIN", 0.05)
    return limit


async def test_while_it_runs_files_wait_for_a_thread_and_come_through(house: House, limit: Limit) -> None:
    house.rule = {"on_success": "move", "archive": "archive", "rescan_interval": "100ms"}
    daemon = Daemon(house.config(), KEY)
    running = asyncio.create_task(daemon.run())
    await until(lambda: '"watching": true' in house.report())
    for granted in (0, 1, None):
        limit.left = granted
        refused = limit.refused
        house.drop(f"{granted}.jpg", seed=9 if granted is None else granted)
        await until(lambda: limit.left is None or limit.refused > refused + 2)  # noqa: B023 - awaited here
        assert not house.jobs(State.HELD)
    await until(lambda: len(house.jobs(State.DONE)) == 3)
    daemon.stop()
    assert await running == 0
    assert house.creates() == 3


@pytest.mark.parametrize(("granted", "told"), [(4, "no thread to watch it"), (5, '"observer": "polling"')])
async def test_at_its_start_an_inbox_waits_for_the_thread_that_watches_it_and_does_without_one_that_listens(
    house: House, limit: Limit, granted: int, told: str
) -> None:
    house.drop("a.jpg")
    daemon = Daemon(house.config(), KEY)
    limit.left = granted
    running = asyncio.create_task(daemon.run())
    await until(lambda: told in house.report())
    limit.left = None
    await until(lambda: house.jobs(State.DONE))
    daemon.stop()
    assert await running == 0


async def test_too_few_to_begin_with_are_told_in_words(house: House, limit: Limit) -> None:
    daemon = Daemon(house.config(), KEY)
    limit.left = 2
    with pytest.raises(WatchdError, match="too few threads") as told:
        await daemon.run()
    limit.left = None
    assert told.value.hint is not None
    assert "TasksMax" in told.value.hint


_GRANTS_NONE_WHILE_THERE_IS = """import os, threading
begin = threading.Thread.start
def start(thread):
    if os.path.exists({!r}):
        raise RuntimeError("can't start new thread")
    begin(thread)
threading.Thread.start = start
"""


async def test_a_stop_while_none_is_granted_ends_well_and_nothing_is_lost(house: House) -> None:
    none = house.root / "none"
    (house.root / "strange").mkdir()
    (house.root / "strange" / "sitecustomize.py").write_text(_GRANTS_NONE_WHILE_THERE_IS.format(str(none)))
    path = os.pathsep.join((str(house.root / "strange"), os.environ.get("PYTHONPATH", "")))
    process = Process(house, environ={"PYTHONPATH": path}, fresh=True).start()
    await until(lambda: '"watching": true' in house.report())
    none.touch()
    house.drop("a.jpg")
    await until(lambda: any(line["event"] == "threads.none" for line in process.log()))
    assert await process.stop() == 0
    assert await house.drain() == 0
    assert house.job("a.jpg").state is State.DONE
