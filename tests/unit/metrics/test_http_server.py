"""The server of metrics and health: it answers any request in short, and only clients that may ask."""

import fcntl
import importlib.resources
import json
import re
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from picwish_watchd.clock import Clock
from picwish_watchd.config.loader import load_config
from picwish_watchd.config.model import Config
from picwish_watchd.config.strings import ListenAddress
from picwish_watchd.counters import Counters
from picwish_watchd.errors import ConfigError
from picwish_watchd.job import State
from picwish_watchd.journal.writer import ChargeState, Journal
from picwish_watchd.metrics.http_server import MetricsServer
from picwish_watchd.metrics.loop_state import InboxState, LoopState
from picwish_watchd.metrics.probes import StatusProbe
from picwish_watchd.pipeline.gate import CloseReason, GateClosure
from tests.support.http_client import HttpReply, get
from tests.unit.journal.job_factory import add_job, add_job_in_state

TOKEN = "s3cret-token"
LOOPBACK = ListenAddress("127.0.0.1", 0)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    file = tmp_path / "watchd.yaml"
    file.write_text(
        "journal: state/journal.db\nbudget: {per_day: 10}\nmin_free: 1\n"
        "rules:\n- {name: scans, inbox: in, outbox: out}\n- {name: plates, inbox: in2, outbox: out2}\n"
    )
    return load_config(file, {})


@pytest.fixture
def journal(config: Config) -> Iterator[Journal]:
    """A journal with a job in each state, of which the done one is paid for, and a spool."""
    journal = Journal.open_for_writing(config.journal, Clock())
    for state in State:
        add_job_in_state(journal, state, f"{state}.jpg")
    job = add_job(journal, "paid.jpg", "plates")
    job = journal.transition(job, State.SUBMITTING, "sending", reserve=5)
    journal.transition(job, State.HELD, "nobody knows", charge=ChargeState.DOUBTFUL)
    Path(f"{config.journal}.spool").mkdir()
    yield journal
    journal.close()


@pytest.fixture(autouse=True)
def _fast_shutdown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("picwish_watchd.metrics.http_server._POLL_INTERVAL", 0.01)


@pytest.fixture
def status_probe(config: Config, journal: Journal) -> StatusProbe:
    return make_probe(config)


def make_probe(config: Config) -> StatusProbe:
    """Return a probe whose event loop has just reported a healthy state."""
    probe = StatusProbe(Clock(), Counters())
    inboxes = tuple(InboxState(rule.name, is_watching=True, unavailable=None, is_alive=True) for rule in config.rules)
    probe.loop_state = LoopState(
        time.monotonic(), config, config.journal, stopping=False, gate_closure=None, inboxes=inboxes
    )
    return probe


@pytest.fixture
def server(status_probe: StatusProbe) -> Iterator[MetricsServer]:
    server = MetricsServer(LOOPBACK, status_probe, None)
    yield server
    server.close()


def get_page(server: MetricsServer, path: str, method: str = "GET", **headers: str) -> HttpReply:
    return get(server.bound_address.port, path, method=method, **headers)


def reason_codes(response: HttpReply) -> list[tuple[str, str | None]]:
    assert (response.status == 200) == (response.json["status"] == "ok") == (not response.json["reasons"])
    return [(reason["code"], reason.get("rule")) for reason in response.json["reasons"]]


def test_metrics_show_what_the_journal_counts(server: MetricsServer, config: Config) -> None:
    Path(f"{config.journal}.spool", "7.result").write_bytes(bytes(1000))
    samples = get_page(server, "/metrics").samples
    assert {state: samples["picwish_watchd_jobs", "scans", state] for state in State} == dict.fromkeys(State, 1)
    assert samples["picwish_watchd_jobs", "plates", "held"] == 1
    assert samples["picwish_watchd_doubtful_credits",] == 5
    assert samples["picwish_watchd_used_credits", "day"] == samples["picwish_watchd_budget_left_credits", "day"] == 5
    assert samples["picwish_watchd_budget_credits", "day"] == 10
    assert ("picwish_watchd_budget_credits", "month") not in samples
    assert 0 < samples["picwish_watchd_oldest_queued_job_age_seconds", "scans"] < 60
    assert samples["picwish_watchd_oldest_queued_job_age_seconds", "plates"] == 0
    assert (samples["picwish_watchd_spool_files",], samples["picwish_watchd_spool_bytes",]) == (1, 1000)


def test_metrics_follow_a_journal_change_at_once(server: MetricsServer, journal: Journal) -> None:
    assert get_page(server, "/metrics").samples["picwish_watchd_jobs", "plates", "queued"] == 0
    job = add_job(journal, "b.jpg", "plates")
    assert get_page(server, "/metrics").samples["picwish_watchd_jobs", "plates", "queued"] == 1
    journal.transition(job, State.SUBMITTING, "sending", reserve=4)
    assert get_page(server, "/metrics").samples["picwish_watchd_reserved_credits",] == 4


def test_openmetrics_is_supported_and_no_label_is_a_path(server: MetricsServer) -> None:
    response = get_page(server, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    families = list(text_string_to_metric_families(response.body))  # type: ignore[no-untyped-call]
    labels = {pair for family in families for sample in family.samples for pair in sample.labels.items()}
    assert {name for name, _ in labels} <= {"rule", "state", "kind", "code", "period", "le", "version", "python"}
    assert not [value for _, value in labels if "/" in value or ":" in value]
    assert all(family.documentation.endswith(".") for family in families)
    assert all(family.name.startswith("picwish_watchd_") for family in families)


def test_each_query_of_the_dashboard_names_a_metric_that_exists(
    server: MetricsServer, status_probe: StatusProbe
) -> None:
    assert status_probe.loop_state is not None
    counters = Counters()
    counters.count_request("create", "200")
    counters.observe_scan("scans", 0.1)
    full = StatusProbe(Clock(), counters)
    full.loop_state = status_probe.loop_state
    busy = MetricsServer(LOOPBACK, full, None)
    try:
        existing = {name for name, *_ in get_page(busy, "/metrics").samples}
    finally:
        busy.close()
    text = importlib.resources.files("picwish_watchd.metrics").joinpath("grafana-dashboard.json").read_text("utf-8")
    board = json.loads(text)
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert len(queries) > 20
    assert all(re.search(r"picwish_watchd_\w+", query) for query in queries)
    assert set(re.findall(r"picwish_watchd_\w+", text)) <= existing


@pytest.mark.parametrize("version", ["abc", "1.x", "", "1..0", "-1"])
def test_an_unknown_version_of_openmetrics_is_answered_all_the_same(
    server: MetricsServer, capsys: pytest.CaptureFixture[str], version: str
) -> None:
    response = get_page(server, "/metrics", Accept=f"application/openmetrics-text; version={version}, */*")
    assert response.status == 200
    assert "picwish_watchd_jobs{" in response.body
    assert "http.failed" not in capsys.readouterr().out


def test_malformed_requests_get_a_short_answer(server: MetricsServer) -> None:
    head = get_page(server, "/metrics", "HEAD")
    assert (head.status, head.body) == (200, "")
    assert int(head.headers["Content-Length"]) > 1000
    assert get_page(server, "/healthz", "HEAD").status == 200
    for path in ("/", "/metrics/", "/favicon.ico", "/../etc/passwd"):
        assert get_page(server, path).status == 404
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
        response = get_page(server, "/metrics", method)
        assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


def test_with_a_token_every_request_must_carry_it(status_probe: StatusProbe) -> None:
    server = MetricsServer(LOOPBACK, status_probe, TOKEN)
    try:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}, {"Authorization": "Bearer ü"}):
            for path in ("/metrics", "/healthz", "/nothing"):
                response = get_page(server, path, **headers)
                assert response.status == 401
                assert response.headers["WWW-Authenticate"].startswith("Bearer")
        assert get_page(server, "/metrics", Authorization=f"Bearer {TOKEN}").status == 200
        server.replace_token("another")
        assert get_page(server, "/metrics", Authorization=f"Bearer {TOKEN}").status == 401
        assert get_page(server, "/metrics", Authorization="bearer another").status == 200
    finally:
        server.close()


GARBAGE = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) + b"\r\n",
    b"GET /metrics HTTP/9.9\r\n\r\n",
    b"GET " + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    b"GET /metrics HTTP/1.1\r\n" + (b"X: " + b"y" * 60_000 + b"\r\n") * 99 + b"\r\n",
    b"GET /metrics HTTP/1.1\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
    b"POST /metrics HTTP/1.1\r\nContent-Length: 999999999\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET /%ff%00?name[]=%ff&\xff HTTP/1.1\r\nHost: \xff\r\n\r\n",
    b"",
)


def test_garbage_is_answered_or_dropped_and_nothing_else_happens(
    server: MetricsServer, capfd: pytest.CaptureFixture[str]
) -> None:
    for garbage in GARBAGE:
        with socket.create_connection(("127.0.0.1", server.bound_address.port), timeout=10) as sock, suppress(OSError):
            sock.sendall(garbage)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
        assert get_page(server, "/metrics").status == 200
    assert "Traceback" not in capfd.readouterr().err


def test_ipv6_loopback_is_served(status_probe: StatusProbe) -> None:
    try:
        server = MetricsServer(ListenAddress("::1", 0), status_probe, None)
    except ConfigError:
        pytest.skip("this machine has no IPv6")
    try:
        assert server.bound_address.is_loopback
        with socket.create_connection(("::1", server.bound_address.port), timeout=10) as sock:
            sock.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
            assert sock.recv(15) == b"HTTP/1.0 200 OK"
    finally:
        server.close()


def test_an_unusable_address_is_reported_with_what_to_do(status_probe: StatusProbe) -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1:9107 cannot be listened on") as caught:
        MetricsServer(ListenAddress("192.0.2.1", 9107), status_probe, None)
    assert caught.value.hint is not None
    assert "no such address, or not yet" in caught.value.hint


def test_silent_clients_do_not_lock_out_others(server: MetricsServer) -> None:
    idle = [socket.create_connection(("127.0.0.1", server.bound_address.port)) for _ in range(30)]
    try:
        for sock in idle:
            sock.sendall(b"GET /metr")
        began = time.monotonic()
        assert get_page(server, "/metrics").status == 200
        assert time.monotonic() - began < 3
    finally:
        for sock in idle:
            sock.close()


def test_a_connection_is_cut_when_its_time_is_over(server: MetricsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("picwish_watchd.metrics.http_server._CONNECTION_TIMEOUT", 0.1)
    with socket.create_connection(("127.0.0.1", server.bound_address.port), timeout=10) as sock:
        sock.sendall(b"GET /metrics HTTP/1.1\r\n")
        assert sock.recv(1) == b""


def test_a_journal_that_others_lock_is_read_all_the_same(server: MetricsServer, config: Config) -> None:
    other = sqlite3.connect(config.journal, isolation_level=None)
    with open(f"{config.journal}.write", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        assert get_page(server, "/metrics").samples["picwish_watchd_journal_up",] == 1
        assert get_page(server, "/healthz").status == 200
        assert time.monotonic() - began < 3
        other.execute("ROLLBACK")
    other.close()


@pytest.mark.parametrize("condition", ["gone", "damaged"])
def test_without_a_journal_the_other_metrics_are_served(config: Config, condition: str) -> None:
    Journal.open_for_writing(config.journal, Clock()).close()
    Path(f"{config.journal}.spool").mkdir()
    if condition == "gone":
        config.journal.unlink()
    else:
        config.journal.write_bytes(bytes(5000))
    server = MetricsServer(LOOPBACK, make_probe(config), None)
    try:
        samples = get_page(server, "/metrics").samples
        assert samples["picwish_watchd_journal_up",] == 0
        assert samples["picwish_watchd_inbox_watched", "scans"] == 1
        assert not [name for name, *_ in samples if name == "picwish_watchd_jobs"]
        assert reason_codes(get_page(server, "/healthz")) == [("journal", None)]
    finally:
        server.close()


def test_health_reports_every_reason(
    server: MetricsServer, status_probe: StatusProbe, config: Config, journal: Journal
) -> None:
    assert get_page(server, "/healthz").status == 200
    live = status_probe.loop_state
    assert live is not None
    status_probe.loop_state = replace(
        live,
        captured_at=time.monotonic() - 60,
        gate_closure=GateClosure(CloseReason.API_DOWN, "PicWish does not answer"),
        inboxes=(
            InboxState("scans", is_watching=False, unavailable="it is not there", is_alive=True),
            InboxState("plates", is_watching=False, unavailable=None, is_alive=False),
        ),
        config=replace(config, min_free=10**18),
    )
    add_job(journal, "flood.jpg", "plates", flood=True)
    job = add_job(journal, "dear.jpg", "plates")
    journal.transition(job, State.SUBMITTING, "sending", reserve=5)
    config.rules[0].outbox.mkdir()
    assert reason_codes(get_page(server, "/healthz")) == [
        ("stuck", None),
        ("api_down", None),
        ("budget", None),
        ("spool", None),
        ("inbox_away", "scans"),
        ("inbox_not_walked", "plates"),
        ("watcher_dead", "plates"),
        ("outbox_away", "scans"),
        ("burst", "plates"),
    ]
    status_probe.loop_state = None
    assert reason_codes(get_page(server, "/healthz")) == [("starting", None)]


def test_a_taken_port_is_reported_with_what_to_do(server: MetricsServer, status_probe: StatusProbe) -> None:
    with pytest.raises(ConfigError) as caught:
        MetricsServer(server.bound_address, status_probe, None)
    assert caught.value.exit_code == 78
    assert str(server.bound_address) in caught.value.message
    assert caught.value.hint


def test_without_http_the_library_is_not_even_imported() -> None:
    modules = "picwish_watchd.daemon.daemon, picwish_watchd.cli.commands.run"
    code = f"import {modules}, sys; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
