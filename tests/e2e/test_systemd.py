"""What systemd hears of the daemon, over a real socket of its kind."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from picwish_watchd.daemon.daemon import Daemon
from picwish_watchd.job import ErrorCode, Problem, State
from tests.support.house import KEY, House, Process, until


class Manager:
    """systemd's end of the socket."""

    def __init__(self, channel: socket.socket, address: str) -> None:
        self._channel = channel
        self.environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "900000"}
        self.heard: list[str] = []

    def listen(self) -> list[str]:
        """All that it has heard so far."""
        while True:
            try:
                self.heard.append(self._channel.recv(4096).decode())
            except BlockingIOError:
                return self.heard

    def forget(self) -> None:
        self.listen()
        self.heard.clear()

    @property
    def status(self) -> str:
        return next((word for word in reversed(self.listen()) if word.startswith("STATUS=")), "STATUS=")[7:]


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        folder = tmp_path_factory.mktemp("s")
        address = f"{folder}/notify" if request.param == "path" else f"@picwish-{folder.name}-{os.getpid()}"
        channel.bind(address.replace("@", "\0", 1))
        channel.setblocking(False)
        yield Manager(channel, address)


@asynccontextmanager
async def serving(house: House, manager: Manager, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Daemon]:
    """The daemon in this process, ready."""
    for name, value in manager.environ.items():
        monkeypatch.setenv(name, value)
    daemon = Daemon(house.config(), KEY)
    running = asyncio.create_task(daemon.run())
    await until(lambda: "READY=1" in manager.listen() or running.done())
    yield daemon
    daemon.stop()
    assert await running == 0


async def test_an_outbox_that_cannot_be_used_is_told_in_the_status(
    house: House, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.rule = {"outbox": "nowhere/outbox"}
    house.drop("a.jpg")
    async with serving(house, manager, monkeypatch):
        await until(lambda: "1 queued; 0 credits today; scans: " in manager.status)
        assert "outbox cannot be used" in manager.status


async def test_start_reload_and_stop_are_told_in_systemds_words(house: House, manager: Manager) -> None:
    process = Process(house, environ=manager.environ, fresh=True).start()
    await until(lambda: {"READY=1", "WATCHDOG=1"} <= set(manager.listen()))
    first = manager.heard[0]
    assert first.startswith("EXTEND_TIMEOUT_USEC="), "asked for before the journal is opened"
    file = house.root / "watchd.yaml"
    file.write_text("rules: [{name: scans, inbocks: x}]\nqps: many")
    manager.forget()
    process.child.send_signal(signal.SIGHUP)
    await until(lambda: "reload refused" in manager.status)
    words = [word for word in manager.heard if word not in ("WATCHDOG=1", "STATUS=idle; 0 credits today")]
    assert words[0].startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert words[1] == "READY=1"
    assert "inbocks" in manager.status
    assert "\n" not in manager.status
    house.configure()
    process.child.send_signal(signal.SIGHUP)
    await until(lambda: manager.status == "idle; 0 credits today")
    manager.forget()
    assert await process.stop() == 0
    words = [word for word in manager.listen() if not word.startswith(("STATUS=", "WATCHDOG="))]
    assert words[0] == "STOPPING=1"
    assert words[1].startswith("EXTEND_TIMEOUT_USEC=")


@pytest.mark.parametrize("manager", ["path"], indirect=True)
async def test_the_status_tells_the_queue_the_credits_and_all_that_is_wrong(
    house: House, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.top = {"budget": {"per_day": 12, "per_month": 1000}}
    house.more_rules = [{"name": "late", "inbox": "late"}]
    for number in range(3):
        house.drop(f"{number}.jpg", seed=number)
    async with serving(house, manager, monkeypatch) as daemon:
        await until(lambda: len(house.jobs(State.DONE)) == 2)
        await until(lambda: manager.status.startswith("1 queued; ") and "budget" in manager.status)  # told each second
        told = manager.status.split("; ")
        assert told[:2] == ["1 queued", "10 of 12 credits today, 10 of 1000 this month"]
        assert told[2].startswith("blocked: the budget of 12 credits a day is reached")
        assert "inbox of late away: " in manager.status
        job = daemon.context.journal.jobs(states=[State.QUEUED])[0]
        daemon.context.journal.move(job, State.HELD, "why", problem=Problem(ErrorCode.OUTPUT_FAILED, "why"))
        await until(lambda: "1 held: see `picwish-watchd jobs --state held`" in manager.status)


@pytest.mark.parametrize("manager", ["path"], indirect=True)
async def test_a_step_that_does_not_turn_starves_the_watchdog_until_it_turns_again(
    house: House, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(house, manager, monkeypatch) as daemon:
        await until(lambda: manager.listen().count("WATCHDOG=1") >= 2)
        daemon.context.pulse.beat("a step that hangs", within=-1)
        await asyncio.sleep(0.4)
        manager.forget()
        await asyncio.sleep(0.5)
        assert "WATCHDOG=1" not in manager.listen()
        daemon.context.pulse.beat("a step that hangs", within=60)
        await until(lambda: "WATCHDOG=1" in manager.listen(), seconds=2)


@pytest.mark.parametrize("manager", ["path"], indirect=True)
async def test_every_step_that_moves_jobs_has_a_pulse(
    house: House, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one that hangs would not be missed."""
    async with serving(house, manager, monkeypatch) as daemon:
        await until(lambda: "journal" in daemon.context.pulse.late(-1000))
        assert daemon.context.pulse.late(-1000) == ["collect", "deliver", "dispose", "gate", "journal", "submit"]


async def test_a_daemon_whose_watchers_have_died_ends_so_that_it_is_started_again(house: House) -> None:
    daemon = Daemon(house.config(), KEY)
    running = asyncio.create_task(daemon.run())
    await until(lambda: house.report().count('"watching": true') == 1)
    for desk in daemon.desks.all():
        desk.watcher.stop()
    with pytest.raises(RuntimeError, match="has died"):
        await running
