"""Metrics and health of a daemon at work: asked by HTTP, while it sends pictures to the simulator."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from picwish_watchd.cli.main import main
from picwish_watchd.config.loader import load
from picwish_watchd.config.model import Config
from picwish_watchd.daemon import daemon
from picwish_watchd.daemon.daemon import Daemon
from picwish_watchd.errors import ConfigError
from picwish_watchd.fs import hang_guard
from picwish_watchd.job import State
from picwish_watchd.metrics import outbox_probe
from picwish_watchd.simulator import Fault, Reply, Reset
from tests.support.asking import Told, ask, free_port
from tests.support.house import KEY, House, until
from tests.support.mounting import hanging


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same waits, of hundredths of a second."""
    monkeypatch.setattr("picwish_watchd.metrics.http_server._TURN", 0.01)
    monkeypatch.setattr(daemon, "_LOOK", 0.05)


class Watched:
    """A daemon that serves, and who asks it."""

    def __init__(self, house: House, http: dict[str, Any]) -> None:
        self.port = free_port()
        self.house = house
        self.listen(**http)
        self.daemon = Daemon(house.config(), KEY, reload=self._load)

    def listen(self, port: int = 0, **http: Any) -> None:
        """What the configuration says from now on."""
        self.house.top["http"] = {"listen": f"127.0.0.1:{port or self.port}", **http}

    def _load(self) -> tuple[Config, str]:
        return load(self.house.configure(), {}), KEY

    async def ask(self, path: str, *, port: int = 0, **headers: str) -> Told:
        return await asyncio.to_thread(ask, port or self.port, path, **headers)

    async def samples(self) -> dict[tuple[str, ...], float]:
        return (await self.ask("/metrics")).samples

    async def codes(self) -> set[tuple[str, str | None]]:
        told = await self.ask("/healthz")
        assert (told.status == 200) == (not told.json["reasons"])
        return {(reason["code"], reason.get("rule")) for reason in told.json["reasons"]}

    async def healthy(self) -> None:
        async with asyncio.timeout(20):
            while await self.codes():
                await asyncio.sleep(0.02)


@asynccontextmanager
async def watched(house: House, **http: Any) -> AsyncIterator[Watched]:
    """While it runs, from its first walk on."""
    it = Watched(house, http)
    running = asyncio.create_task(it.daemon.run())
    try:
        await until(lambda: running.done() or (hasattr(it.daemon, "desks") and it.daemon.desks.walked))
        yield it
    finally:
        it.daemon.stop()
        await running


async def test_what_was_done_and_paid_is_counted_and_survives_a_restart(house: House) -> None:
    house.top["budget"] = {"per_day": 100, "per_month": 1000}
    house.rule = {"settle_timeout": "10ms"}
    for number in range(2):
        house.drop(f"{number}.jpg", seed=number)
    house.drop("text.jpg", b"no picture at all" * 50)
    async with watched(house) as it:
        await until(lambda: len(house.jobs(State.DONE, State.REJECTED)) == 3)
        await it.healthy()
        told = await it.samples()
    assert told["picwish_watchd_jobs", "scans", "done"] == 2
    assert told["picwish_watchd_jobs", "scans", "rejected"] == 1
    assert told["picwish_watchd_credits_spent_total",] == told["picwish_watchd_used_credits", "day"] == 10
    assert told["picwish_watchd_budget_left_credits", "day"] == 90
    assert told["picwish_watchd_budget_left_credits", "month"] == 990
    assert told["picwish_watchd_requests_total", "200", "create"] == 2
    assert told["picwish_watchd_requests_total", "200", "download"] == 2
    assert told["picwish_watchd_result_hour_left_seconds_count",] == 2
    assert told["picwish_watchd_result_hour_left_seconds_bucket", "3540.0"] == 0
    assert told["picwish_watchd_walk_duration_seconds_count", "scans"] >= 1
    assert told["picwish_watchd_inbox_watched", "scans"] == 1
    assert sum(number for (name, *_), number in told.items() if name == "picwish_watchd_gate_closed") == 0
    async with watched(house) as it:
        again = await it.samples()
    kept = ("picwish_watchd_jobs", "picwish_watchd_credits_spent_total", "picwish_watchd_used_credits")
    assert [again[key] for key in again if key[0] in kept] == [told[key] for key in told if key[0] in kept]
    assert ("picwish_watchd_requests_total", "200", "create") not in again


async def test_requests_are_counted_by_what_came_of_them(house: House) -> None:
    script = house.simulator.script
    at_once = {"Retry-After": "0"}
    script.add(Fault("create", Reply(429, headers=at_once)))
    # the first query is the probe of the start
    script.add(Fault("query", Reply(200, b'{"status": 429, "message": "slow down", "data": {}}', at_once), nth=2))
    script.add(Fault("download", Reset()))
    house.drop("a.jpg")
    async with watched(house) as it:
        await until(lambda: len(house.jobs(State.DONE)) == 1)
        told = await it.samples()
    assert told["picwish_watchd_requests_total", "429", "create"] == 1
    assert told["picwish_watchd_requests_total", "200", "create"] == 1
    assert told["picwish_watchd_requests_total", "429", "query"] == 1
    assert told["picwish_watchd_requests_total", "broken", "download"] == 1
    assert told["picwish_watchd_requests_total", "200", "download"] == 1
    assert told["picwish_watchd_rate_limited_total",] == 2


async def test_health_names_all_that_waits_for_a_person_and_is_well_when_that_is_mended(house: House) -> None:
    house.top["budget"] = {"burst": {"images": 1, "per": "1h"}}
    house.more_rules = [
        {"name": "late", "inbox": "late", "rescan_interval": "50ms"},
        {"name": "unmade", "inbox": "well", "outbox": "nas/outbox"},
    ]
    (house.root / "well").mkdir()
    for number in range(3):
        house.drop(f"{number}.jpg", seed=number)
    async with watched(house) as it:
        await until(lambda: len(house.jobs(State.DONE)) == 1 and len(house.jobs()) == 3)
        assert await it.codes() == {("inbox_away", "late"), ("outbox_away", "unmade"), ("burst", "scans")}
        assert (await it.samples())["picwish_watchd_inbox_away", "late"] == 1
        assert (await it.samples())["picwish_watchd_flood_jobs", "scans"] == 2
        assert not (house.root / "nas").exists()
        (house.root / "nas").mkdir()
        (house.root / "late").mkdir()
        it.daemon.context.journal.approve("scans", [])
        it.daemon.context.bells.submit.ring()
        await it.healthy()


async def test_a_closed_gate_is_told_with_its_code(house: House) -> None:
    for operation in ("create", "query"):
        house.simulator.script.add(Fault(operation, Reply(401), times=1000))
    house.drop("a.jpg")
    async with watched(house) as it:
        await until(lambda: it.daemon.gate.told is not None)
        assert await it.codes() == {("unauthorized", None)}
        told = await it.samples()
        assert told["picwish_watchd_gate_closed", "unauthorized"] == 1
        assert told["picwish_watchd_gate_closed", "api_down"] == 0
        assert told["picwish_watchd_oldest_queued_job_age_seconds", "scans"] > 0


async def test_an_outbox_that_hangs_keeps_one_thread_however_often_somebody_asks(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room, name in ((outbox_probe, "_PATIENCE"), (hang_guard, "PATIENCE")):
        monkeypatch.setattr(room, name, 0.1)
    (house.root / "nas").mkdir()
    (house.root / "well").mkdir()
    house.more_rules = [{"name": "to", "inbox": "well", "outbox": "nas/out"}]
    with hanging(house.root / "nas"):
        async with watched(house) as it:
            for _ in range(3):
                assert await it.codes() == {("outbox_away", "to")}
            assert sum(thread.name.startswith("look-") for thread in threading.enumerate()) == 1


async def test_images_do_not_wait_for_a_port_that_is_taken_and_it_is_served_once_it_is_free(
    house: House, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("picwish_watchd.metrics.exporter._AGAIN", 0.02)
    house.drop("a.jpg")
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as other:
        async with watched(house, port=port) as it:
            await until(lambda: len(house.jobs(State.DONE)) == 1)
            told = capsys.readouterr().out
            assert told.count("http.refused") == 1
            assert "cannot be listened on: Address already in use; neither metrics nor health are served" in told
            assert "another picwish-watchd, may have that port" in told
            other.close()
            await until(lambda: "http.listening" in capsys.readouterr().out)
            assert (await it.ask("/healthz", port=port)).status == 200


async def test_a_token_that_is_missing_at_a_reload_is_waited_for_as_was_told(
    house: House, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("picwish_watchd.metrics.exporter._AGAIN", 0.02)
    async with watched(house) as it:
        del house.top["http"]
        it.daemon.reload()
        moved = free_port()
        it.listen(moved, token_file="token")
        it.daemon.reload()
        assert "tried again by itself" in capsys.readouterr().out
        token = house.root / "fresh"
        token.write_text("s3cret\n")
        token.chmod(0o600)
        token.rename(house.root / "token")
        await until(lambda: "http.listening" in capsys.readouterr().out)
        assert (await it.ask("/healthz", port=moved)).status == 401
        assert (await it.ask("/healthz", port=moved, Authorization="Bearer s3cret")).status == 200


async def test_check_tells_of_the_address_and_not_while_the_daemon_has_it(
    house: House, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PICWISH_API_KEY", KEY)
    port = free_port()
    house.top["http"] = {"listen": f"127.0.0.1:{port}"}
    words = ["check", "-c", str(house.configure())]
    assert await asyncio.to_thread(main, words) == 0
    assert f"ok    address of http: 127.0.0.1:{port} can be listened on" in capsys.readouterr().out
    with socket.create_server(("127.0.0.1", port)):
        assert await asyncio.to_thread(main, words) == 1
        assert f"FAIL  http.listen: 127.0.0.1:{port} cannot be listened on: Address" in capsys.readouterr().out
    async with watched(house, port=port):
        assert await asyncio.to_thread(main, ["check", "-c", str(house.configure())]) == 0
        assert "address of http" not in capsys.readouterr().out


async def test_a_token_that_others_can_read_is_a_wrong_configuration_at_start(house: House) -> None:
    (house.root / "token").write_text("s3cret")
    house.top["http"] = {"listen": "127.0.0.1:0", "token_file": "token"}
    with pytest.raises(ConfigError, match="can be read by others") as caught:
        await Daemon(house.config(), KEY).run()
    assert caught.value.exit_code == 78


async def test_a_loop_that_does_not_turn_is_told_before_systemd_loses_patience(house: House) -> None:
    async with watched(house) as it:
        await it.healthy()
        it.daemon.context.pulse.beat("polish", within=-60)
        async with asyncio.timeout(20):
            while (told := await it.ask("/healthz")).status == 200:
                await asyncio.sleep(0.02)
        assert not told.json["checks"]["steps"]
        assert told.json["reasons"] == [{"code": "late", "message": "no progress: polish"}]
        it.daemon.context.pulse.beat("polish")
        await it.healthy()


async def test_a_reload_moves_it_and_what_cannot_be_leaves_it_where_it_was(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    token = house.root / "token"
    token.write_text("s3cret\n")
    token.chmod(0o600)
    async with watched(house) as it:
        with socket.create_server(("127.0.0.1", 0)) as other:
            it.listen(other.getsockname()[1])
            it.daemon.reload()
            assert "is served on, as before" in capsys.readouterr().out
            assert (await it.ask("/healthz")).status == 200
        it.listen(token_file="token")
        it.daemon.reload()
        assert (await it.ask("/healthz")).status == 401
        assert (await it.ask("/healthz", Authorization="Bearer s3cret")).status == 200
        token.chmod(0o644)
        it.daemon.reload()
        assert "can be read by others" in capsys.readouterr().out
        assert (await it.ask("/healthz", Authorization="Bearer s3cret")).status == 200
        moved = free_port()
        it.listen(moved)
        it.daemon.reload()
        assert (await it.ask("/healthz", port=moved)).status == 200
        with pytest.raises(OSError):
            await it.ask("/healthz")
        del house.top["http"]
        it.daemon.reload()
        with pytest.raises(OSError):
            await it.ask("/healthz", port=moved)


async def test_a_journal_that_goes_while_it_runs_is_told_until_the_daemon_ends(house: House, tmp_path: Path) -> None:
    async with watched(house) as it:
        away = tmp_path / "away.db"
        house.journal.rename(away)
        assert ("journal", None) in await it.codes()
        assert (await it.samples())["picwish_watchd_journal_up",] == 0
        away.rename(house.journal)
        await it.healthy()
