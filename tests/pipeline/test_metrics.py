"""Metrics and health of a daemon, requested by HTTP while it sends images to the simulator."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from picwish_watchd.cli.main import main
from picwish_watchd.config.loader import load_config
from picwish_watchd.config.model import Config
from picwish_watchd.daemon.daemon import Daemon
from picwish_watchd.errors import ConfigError
from picwish_watchd.fs import hang_guard
from picwish_watchd.job import State
from picwish_watchd.metrics import outbox_probe
from picwish_watchd.simulator import Fault, Reply, Reset
from tests.support.harness import KEY, Harness, wait_until
from tests.support.http_client import HttpReply, free_port, get
from tests.support.mounts import hanging_mount


@pytest.fixture(autouse=True)
def _short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use intervals of hundredths of a second."""
    monkeypatch.setattr("picwish_watchd.metrics.http_server._POLL_INTERVAL", 0.01)
    monkeypatch.setattr("picwish_watchd.daemon.monitor._MONITOR_INTERVAL", 0.05)


class MonitoredDaemon:
    """A running daemon and the client of its HTTP server."""

    def __init__(self, harness: Harness, http: dict[str, Any]) -> None:
        self.port = free_port()
        self.harness = harness
        self.configure_http(**http)
        self.daemon = Daemon(harness.load_config(), KEY, reload=self._load)

    def configure_http(self, port: int = 0, **http: Any) -> None:
        """Set the `http` section of the configuration."""
        self.harness.top_level["http"] = {"listen": f"127.0.0.1:{port or self.port}", **http}

    def _load(self) -> tuple[Config, str]:
        return load_config(self.harness.write_config(), {}), KEY

    async def get(self, path: str, *, port: int = 0, **headers: str) -> HttpReply:
        return await asyncio.to_thread(get, port or self.port, path, **headers)

    async def samples(self) -> dict[tuple[str, ...], float]:
        return (await self.get("/metrics")).samples

    async def health_reasons(self) -> set[tuple[str, str | None]]:
        response = await self.get("/healthz")
        assert (response.status == 200) == (not response.json["reasons"])
        return {(reason["code"], reason.get("rule")) for reason in response.json["reasons"]}

    async def wait_until_healthy(self) -> None:
        async with asyncio.timeout(20):
            while await self.health_reasons():
                await asyncio.sleep(0.02)


@asynccontextmanager
async def run_monitored_daemon(harness: Harness, **http: Any) -> AsyncIterator[MonitoredDaemon]:
    """Run the daemon; the block begins after its first scan."""
    it = MonitoredDaemon(harness, http)
    running = asyncio.create_task(it.daemon.run())
    try:
        await wait_until(
            lambda: running.done() or (it.daemon.is_serving and it.daemon.services.inboxes.has_scanned_all)
        )
        yield it
    finally:
        it.daemon.stop()
        await running


async def test_done_jobs_and_credits_are_counted_across_a_restart(harness: Harness) -> None:
    harness.top_level["budget"] = {"per_day": 100, "per_month": 1000}
    harness.rule = {"settle_timeout": "10ms"}
    for number in range(2):
        harness.drop_file(f"{number}.jpg", seed=number)
    harness.drop_file("text.jpg", b"no picture at all" * 50)
    async with run_monitored_daemon(harness) as it:
        await wait_until(lambda: len(harness.jobs(State.DONE, State.REJECTED)) == 3)
        await it.wait_until_healthy()
        samples = await it.samples()
    assert samples["picwish_watchd_jobs", "scans", "done"] == 2
    assert samples["picwish_watchd_jobs", "scans", "rejected"] == 1
    assert samples["picwish_watchd_credits_spent_total",] == samples["picwish_watchd_used_credits", "day"] == 10
    assert samples["picwish_watchd_budget_left_credits", "day"] == 90
    assert samples["picwish_watchd_budget_left_credits", "month"] == 990
    assert samples["picwish_watchd_requests_total", "200", "create"] == 2
    assert samples["picwish_watchd_requests_total", "200", "download"] == 2
    assert samples["picwish_watchd_result_hour_left_seconds_count",] == 2
    assert samples["picwish_watchd_result_hour_left_seconds_bucket", "3540.0"] == 0
    assert samples["picwish_watchd_walk_duration_seconds_count", "scans"] >= 1
    assert samples["picwish_watchd_inbox_watched", "scans"] == 1
    assert sum(number for (name, *_), number in samples.items() if name == "picwish_watchd_gate_closed") == 0
    async with run_monitored_daemon(harness) as it:
        again = await it.samples()
    persistent = ("picwish_watchd_jobs", "picwish_watchd_credits_spent_total", "picwish_watchd_used_credits")
    assert [again[key] for key in again if key[0] in persistent] == [
        samples[key] for key in samples if key[0] in persistent
    ]
    assert ("picwish_watchd_requests_total", "200", "create") not in again


async def test_requests_are_counted_by_outcome(harness: Harness) -> None:
    script = harness.simulator.script
    at_once = {"Retry-After": "0"}
    script.add(Fault("create", Reply(429, headers=at_once)))
    # The first query is the probe at the start.
    script.add(Fault("query", Reply(200, b'{"status": 429, "message": "slow down", "data": {}}', at_once), nth=2))
    script.add(Fault("download", Reset()))
    harness.drop_file("a.jpg")
    async with run_monitored_daemon(harness) as it:
        await wait_until(lambda: len(harness.jobs(State.DONE)) == 1)
        samples = await it.samples()
    assert samples["picwish_watchd_requests_total", "429", "create"] == 1
    assert samples["picwish_watchd_requests_total", "200", "create"] == 1
    assert samples["picwish_watchd_requests_total", "429", "query"] == 1
    assert samples["picwish_watchd_requests_total", "broken", "download"] == 1
    assert samples["picwish_watchd_requests_total", "200", "download"] == 1
    assert samples["picwish_watchd_rate_limited_total",] == 2


async def test_health_names_all_troubles_and_recovers_once_they_are_fixed(harness: Harness) -> None:
    harness.top_level["budget"] = {"burst": {"images": 1, "per": "1h"}}
    harness.more_rules = [
        {"name": "late", "inbox": "late", "rescan_interval": "50ms"},
        {"name": "unmade", "inbox": "well", "outbox": "nas/outbox"},
    ]
    (harness.root / "well").mkdir()
    for number in range(3):
        harness.drop_file(f"{number}.jpg", seed=number)
    async with run_monitored_daemon(harness) as it:
        await wait_until(lambda: len(harness.jobs(State.DONE)) == 1 and len(harness.jobs()) == 3)
        assert await it.health_reasons() == {("inbox_away", "late"), ("outbox_away", "unmade"), ("burst", "scans")}
        assert (await it.samples())["picwish_watchd_inbox_away", "late"] == 1
        assert (await it.samples())["picwish_watchd_flood_jobs", "scans"] == 2
        assert not (harness.root / "nas").exists()
        (harness.root / "nas").mkdir()
        (harness.root / "late").mkdir()
        it.daemon.services.context.journal.approve("scans", [])
        it.daemon.services.context.wakeups.submit.notify()
        await it.wait_until_healthy()


async def test_health_reports_a_closed_gate_with_its_code(harness: Harness) -> None:
    for operation in ("create", "query"):
        harness.simulator.script.add(Fault(operation, Reply(401), times=1000))
    harness.drop_file("a.jpg")
    async with run_monitored_daemon(harness) as it:
        await wait_until(lambda: it.daemon.services.gate.why_not_submitting is not None)
        assert await it.health_reasons() == {("unauthorized", None)}
        samples = await it.samples()
        assert samples["picwish_watchd_gate_closed", "unauthorized"] == 1
        assert samples["picwish_watchd_gate_closed", "api_down"] == 0
        assert samples["picwish_watchd_oldest_queued_job_age_seconds", "scans"] > 0


async def test_a_hanging_outbox_blocks_one_thread_however_often_it_is_probed(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room, name in ((outbox_probe, "_PROBE_TIMEOUT"), (hang_guard, "HANG_TIMEOUT")):
        monkeypatch.setattr(room, name, 0.1)
    (harness.root / "nas").mkdir()
    (harness.root / "well").mkdir()
    harness.more_rules = [{"name": "to", "inbox": "well", "outbox": "nas/out"}]
    with hanging_mount(harness.root / "nas"):
        async with run_monitored_daemon(harness) as it:
            for _ in range(3):
                assert await it.health_reasons() == {("outbox_away", "to")}
            assert sum(thread.name.startswith("look-") for thread in threading.enumerate()) == 1


async def test_a_taken_port_blocks_no_images_and_is_served_once_free(
    harness: Harness, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("picwish_watchd.metrics.exporter._RETRY_DELAY", 0.02)
    harness.drop_file("a.jpg")
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as other:
        async with run_monitored_daemon(harness, port=port) as it:
            await wait_until(lambda: len(harness.jobs(State.DONE)) == 1)
            output = capsys.readouterr().out
            assert output.count("http.refused") == 1
            assert "cannot be listened on: Address already in use; neither metrics nor health are served" in output
            assert "another picwish-watchd, may have that port" in output
            other.close()
            await wait_until(lambda: "http.listening" in capsys.readouterr().out)
            assert (await it.get("/healthz", port=port)).status == 200


async def test_a_token_file_missing_at_a_reload_is_waited_for(
    harness: Harness, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("picwish_watchd.metrics.exporter._RETRY_DELAY", 0.02)
    async with run_monitored_daemon(harness) as it:
        del harness.top_level["http"]
        it.daemon.reload()
        moved = free_port()
        it.configure_http(moved, token_file="token")
        it.daemon.reload()
        assert "tried again automatically" in capsys.readouterr().out
        token = harness.root / "fresh"
        token.write_text("s3cret\n")
        token.chmod(0o600)
        token.rename(harness.root / "token")
        await wait_until(lambda: "http.listening" in capsys.readouterr().out)
        assert (await it.get("/healthz", port=moved)).status == 401
        assert (await it.get("/healthz", port=moved, Authorization="Bearer s3cret")).status == 200


async def test_check_reports_a_taken_address_unless_the_daemon_holds_it(
    harness: Harness, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PICWISH_API_KEY", KEY)
    port = free_port()
    harness.top_level["http"] = {"listen": f"127.0.0.1:{port}"}
    words = ["check", "-c", str(harness.write_config())]
    assert await asyncio.to_thread(main, words) == 0
    assert f"ok    address of http: 127.0.0.1:{port} can be listened on" in capsys.readouterr().out
    with socket.create_server(("127.0.0.1", port)):
        assert await asyncio.to_thread(main, words) == 1
        assert f"FAIL  http.listen: 127.0.0.1:{port} cannot be listened on: Address" in capsys.readouterr().out
    async with run_monitored_daemon(harness, port=port):
        assert await asyncio.to_thread(main, ["check", "-c", str(harness.write_config())]) == 0
        assert "address of http" not in capsys.readouterr().out


async def test_a_token_that_others_can_read_is_a_wrong_configuration_at_start(harness: Harness) -> None:
    (harness.root / "token").write_text("s3cret")
    harness.top_level["http"] = {"listen": "127.0.0.1:0", "token_file": "token"}
    with pytest.raises(ConfigError, match="can be read by others") as caught:
        await Daemon(harness.load_config(), KEY).run()
    assert caught.value.exit_code == 78


async def test_a_stuck_loop_is_unhealthy_before_the_watchdog_fires(harness: Harness) -> None:
    async with run_monitored_daemon(harness) as it:
        await it.wait_until_healthy()
        it.daemon.services.context.heartbeat.beat("polish", within=-60)
        async with asyncio.timeout(20):
            while (response := await it.get("/healthz")).status == 200:
                await asyncio.sleep(0.02)
        assert not response.json["checks"]["steps"]
        assert response.json["reasons"] == [{"code": "late", "message": "no progress: polish"}]
        it.daemon.services.context.heartbeat.beat("polish")
        await it.wait_until_healthy()


async def test_a_reload_moves_the_server_or_leaves_it_where_it_was(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    token = harness.root / "token"
    token.write_text("s3cret\n")
    token.chmod(0o600)
    async with run_monitored_daemon(harness) as it:
        with socket.create_server(("127.0.0.1", 0)) as other:
            it.configure_http(other.getsockname()[1])
            it.daemon.reload()
            assert "is still served, as before" in capsys.readouterr().out
            assert (await it.get("/healthz")).status == 200
        it.configure_http(token_file="token")
        it.daemon.reload()
        assert (await it.get("/healthz")).status == 401
        assert (await it.get("/healthz", Authorization="Bearer s3cret")).status == 200
        token.chmod(0o644)
        it.daemon.reload()
        assert "can be read by others" in capsys.readouterr().out
        assert (await it.get("/healthz", Authorization="Bearer s3cret")).status == 200
        moved = free_port()
        it.configure_http(moved)
        it.daemon.reload()
        assert (await it.get("/healthz", port=moved)).status == 200
        with pytest.raises(OSError):
            await it.get("/healthz")
        del harness.top_level["http"]
        it.daemon.reload()
        with pytest.raises(OSError):
            await it.get("/healthz", port=moved)


async def test_a_journal_removed_at_run_time_is_reported_until_the_end(harness: Harness, tmp_path: Path) -> None:
    async with run_monitored_daemon(harness) as it:
        away = tmp_path / "away.db"
        harness.journal.rename(away)
        assert ("journal", None) in await it.health_reasons()
        assert (await it.samples())["picwish_watchd_journal_up",] == 0
        away.rename(harness.journal)
        await it.wait_until_healthy()
