"""What the daemon reports to systemd, received on a real notification socket."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from picwish_watchd.daemon.daemon import Daemon
from picwish_watchd.job import ErrorCode, Problem, State
from tests.support.harness import KEY, DaemonProcess, Harness, wait_until


class FakeServiceManager:
    """systemd's end of the notification socket."""

    def __init__(self, channel: socket.socket, address: str) -> None:
        self._channel = channel
        self.environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "900000"}
        self.heard: list[str] = []

    def received_messages(self) -> list[str]:
        """Return all messages received so far."""
        while True:
            try:
                self.heard.append(self._channel.recv(4096).decode())
            except BlockingIOError:
                return self.heard

    def clear(self) -> None:
        self.received_messages()
        self.heard.clear()

    @property
    def last_status(self) -> str:
        return next((word for word in reversed(self.received_messages()) if word.startswith("STATUS=")), "STATUS=")[7:]


@pytest.fixture(params=["path", "abstract"])
def service_manager(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FakeServiceManager]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        folder = tmp_path_factory.mktemp("s")
        address = f"{folder}/notify" if request.param == "path" else f"@picwish-{folder.name}-{os.getpid()}"
        channel.bind(address.replace("@", "\0", 1))
        channel.setblocking(False)
        yield FakeServiceManager(channel, address)


@asynccontextmanager
async def running_daemon(
    harness: Harness, manager: FakeServiceManager, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Daemon]:
    """Run the daemon in this process; the block begins once it is ready."""
    for name, value in manager.environ.items():
        monkeypatch.setenv(name, value)
    daemon = Daemon(harness.load_config(), KEY)
    running = asyncio.create_task(daemon.run())
    await wait_until(lambda: "READY=1" in manager.received_messages() or running.done())
    yield daemon
    daemon.stop()
    assert await running == 0


async def test_the_status_names_an_unusable_outbox(
    harness: Harness, service_manager: FakeServiceManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.rule = {"outbox": "nowhere/outbox"}
    harness.drop_file("a.jpg")
    async with running_daemon(harness, service_manager, monkeypatch):
        await wait_until(lambda: "1 queued; 0 credits today; scans: " in service_manager.last_status)
        assert "outbox cannot be used" in service_manager.last_status


async def test_start_reload_and_stop_are_notified_to_systemd(
    harness: Harness, service_manager: FakeServiceManager
) -> None:
    process = DaemonProcess(harness, environ=service_manager.environ, fresh=True).start()
    await wait_until(lambda: {"READY=1", "WATCHDOG=1"} <= set(service_manager.received_messages()))
    first = service_manager.heard[0]
    assert first.startswith("EXTEND_TIMEOUT_USEC="), "asked for before the journal is opened"
    file = harness.root / "watchd.yaml"
    file.write_text("rules: [{name: scans, inbocks: x}]\nqps: many")
    service_manager.clear()
    process.child.send_signal(signal.SIGHUP)
    await wait_until(lambda: "reload refused" in service_manager.last_status)
    words = [word for word in service_manager.heard if word not in ("WATCHDOG=1", "STATUS=idle; 0 credits today")]
    assert words[0].startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert words[1] == "READY=1"
    assert "inbocks" in service_manager.last_status
    assert "\n" not in service_manager.last_status
    harness.write_config()
    process.child.send_signal(signal.SIGHUP)
    await wait_until(lambda: service_manager.last_status == "idle; 0 credits today")
    service_manager.clear()
    assert await process.stop() == 0
    words = [word for word in service_manager.received_messages() if not word.startswith(("STATUS=", "WATCHDOG="))]
    assert words[0] == "STOPPING=1"
    assert words[1].startswith("EXTEND_TIMEOUT_USEC=")


@pytest.mark.parametrize("service_manager", ["path"], indirect=True)
async def test_the_status_shows_queue_credits_and_all_troubles(
    harness: Harness, service_manager: FakeServiceManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.top_level = {"budget": {"per_day": 12, "per_month": 1000}}
    harness.more_rules = [{"name": "late", "inbox": "late"}]
    for number in range(3):
        harness.drop_file(f"{number}.jpg", seed=number)
    async with running_daemon(harness, service_manager, monkeypatch) as daemon:
        await wait_until(lambda: len(harness.jobs(State.DONE)) == 2)
        # The status is reported once a second.
        await wait_until(
            lambda: service_manager.last_status.startswith("1 queued; ") and "budget" in service_manager.last_status
        )
        status_parts = service_manager.last_status.split("; ")
        assert status_parts[:2] == ["1 queued", "10 of 12 credits today, 10 of 1000 this month"]
        assert status_parts[2].startswith("blocked: the budget of 12 credits a day is reached")
        assert "inbox of late away: " in service_manager.last_status
        job = daemon.services.context.journal.jobs(states=[State.QUEUED])[0]
        daemon.services.context.journal.transition(
            job, State.HELD, "why", problem=Problem(ErrorCode.OUTPUT_FAILED, "why")
        )
        await wait_until(lambda: "1 held: see `picwish-watchd jobs --state held`" in service_manager.last_status)


@pytest.mark.parametrize("service_manager", ["path"], indirect=True)
async def test_a_stuck_step_stops_watchdog_pings_until_it_continues(
    harness: Harness, service_manager: FakeServiceManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_daemon(harness, service_manager, monkeypatch) as daemon:
        await wait_until(lambda: service_manager.received_messages().count("WATCHDOG=1") >= 2)
        daemon.services.context.heartbeat.beat("a step that hangs", within=-1)
        await asyncio.sleep(0.4)
        service_manager.clear()
        await asyncio.sleep(0.5)
        assert "WATCHDOG=1" not in service_manager.received_messages()
        daemon.services.context.heartbeat.beat("a step that hangs", within=60)
        await wait_until(lambda: "WATCHDOG=1" in service_manager.received_messages(), seconds=2)


@pytest.mark.parametrize("service_manager", ["path"], indirect=True)
async def test_every_pipeline_step_has_a_heartbeat(
    harness: Harness, service_manager: FakeServiceManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step without a heartbeat could hang without the watchdog noticing."""
    async with running_daemon(harness, service_manager, monkeypatch) as daemon:
        heartbeat = daemon.services.context.heartbeat
        await wait_until(lambda: "journal" in heartbeat.overdue(-1000))
        assert heartbeat.overdue(-1000) == [
            "collect",
            "deliver",
            "dispose",
            "gate",
            "journal",
            "submit",
        ]


async def test_a_daemon_with_dead_watchers_exits_to_be_restarted(harness: Harness) -> None:
    daemon = Daemon(harness.load_config(), KEY)
    running = asyncio.create_task(daemon.run())
    await wait_until(lambda: harness.daemon_report().count('"watching": true') == 1)
    for inbox in daemon.services.inboxes.list_active():
        inbox.watcher.stop()
    with pytest.raises(RuntimeError, match="has died"):
        await running
