"""The simulator as a whole: start, stop, and listening on loopback only."""

import asyncio
import socket
import threading
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from picwish_watchd.simulator import Fault, Hang, Settings, Simulator, run_simulator
from tests.unit.simulator.simulator_client import ManualClock, SimulatorClient, make_quartered_image


@pytest.fixture
def temp_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


async def test_it_listens_on_loopback_only(simulator: Simulator) -> None:
    for url in (simulator.url, simulator.results_url):
        assert url.startswith("http://127.0.0.1:")
        with socket.socket() as probe:
            probe.settimeout(1)
            assert probe.connect_ex(("127.0.0.2", port_of(url))) != 0


async def test_stopping_breaks_what_hangs_within_a_second_and_leaves_nothing(temp_folder: Path) -> None:
    async with httpx.AsyncClient(trust_env=False, verify=False) as http:
        simulator = Simulator(Settings(qps=None))
        await simulator.start()
        call = SimulatorClient(simulator, http)
        simulator.script.add(Fault("query", Hang()))
        waiting = [asyncio.create_task(call.query("x")), asyncio.create_task(call.create(sync="1"))]
        await call.create(make_quartered_image("PNG", (3000, 2000)))
        while len(simulator.tasks) < 2 or len(simulator.requests) < 3:
            await asyncio.sleep(0.01)
        assert list(temp_folder.iterdir())
        began = asyncio.get_running_loop().time()
        await simulator.stop()
        assert asyncio.get_running_loop().time() - began < 1
        for request in waiting:
            with pytest.raises(httpx.HTTPError):
                await request
        with pytest.raises(httpx.ConnectError):
            await call.query("x")
        assert list(temp_folder.iterdir()) == []
        assert len(simulator.tasks) == 2
        assert simulator.ledger == []


@pytest.mark.untraced
async def test_a_picture_that_is_being_made_when_it_stops_leaves_nothing_either(temp_folder: Path) -> None:
    async with httpx.AsyncClient(trust_env=False, verify=False) as http:
        for number in range(20):
            async with Simulator(Settings(qps=None)) as simulator:
                await SimulatorClient(simulator, http).create(make_quartered_image(size=(40 + number * 40, 300)))
                await SimulatorClient(simulator, http).query("x")
    for thread in threading.enumerate():
        if thread.name.startswith("picwish-simulator"):
            thread.join()
    assert list(temp_folder.iterdir()) == []


async def test_the_ledger_can_be_read_after_the_end() -> None:
    async with (
        Simulator(Settings(processing=(0.0, 0.0))) as simulator,
        httpx.AsyncClient(trust_env=False, verify=False) as http,
    ):
        assert (await SimulatorClient(simulator, http).create(sync="1")).json()["data"]["state"] == 1
    assert simulator.credits_used == 5


async def test_a_port_in_use_is_reported_and_nothing_is_left_open(simulator: Simulator, temp_folder: Path) -> None:
    other = Simulator()
    with pytest.raises(OSError, match="in use"):
        await other.start(port_of(simulator.url))
    assert list(temp_folder.iterdir()) == []


async def test_stopping_twice_or_unstarted_is_fine() -> None:
    simulator = Simulator()
    await simulator.stop()
    await simulator.start()
    await simulator.stop()
    await simulator.stop()


async def test_settings_can_be_changed_while_it_runs(simulator: Simulator, client: SimulatorClient) -> None:
    simulator.settings = replace(simulator.settings, key="new")
    assert (await client.create()).status_code == 401
    assert (await client.create(headers={"X-API-KEY": "new"})).status_code == 200


async def test_serve_announces_its_address_and_runs_until_cancelled() -> None:
    announced: asyncio.Queue[str] = asyncio.Queue()
    running = asyncio.create_task(run_simulator(Settings(), 0, announced.put_nowait))
    url = await announced.get()
    async with httpx.AsyncClient(trust_env=False, verify=False) as http:
        assert (await http.get(url)).status_code == 404
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        with pytest.raises(httpx.ConnectError):
            await http.get(url)


async def test_after_a_restart_the_ports_are_the_same_and_the_old_tasks_unknown(
    simulator: Simulator, client: SimulatorClient, clock: ManualClock
) -> None:
    finished = await client.create_finished()
    under_way = await client.create_task()
    urls = simulator.url, simulator.results_url
    await simulator.stop()
    await simulator.start()
    assert (simulator.url, simulator.results_url) == urls
    clock.at += 100
    for task_id in (finished["task_id"], under_way):
        assert (await client.query(task_id)).status_code == 404
    assert (await client.http.get(finished["image"])).status_code == 404
    assert (await client.create_finished())["state"] == 1
    assert simulator.credits_used == 10
