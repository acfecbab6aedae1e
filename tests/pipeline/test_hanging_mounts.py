"""A mount that does not respond, like one of a dead server, blocks its own rules and nothing else."""

import asyncio
import json
import os
import socket
import threading
from contextlib import suppress

import pytest

from picwish_watchd.cli.main import main
from picwish_watchd.daemon import monitor
from picwish_watchd.daemon.daemon import Daemon
from picwish_watchd.fs import hang_guard
from picwish_watchd.job import State
from picwish_watchd.pipeline import inboxes
from picwish_watchd.pipeline.gate import CloseReason
from picwish_watchd.runtime import keyed_executor
from picwish_watchd.runtime.worker_key import WorkerKey
from tests.support.harness import KEY, Harness, wait_until
from tests.support.mounts import hanging_mount


@pytest.fixture(autouse=True)
def _short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use timeouts of tenths of a second."""
    for room, name in ((hang_guard, "HANG_TIMEOUT"), (keyed_executor, "STUCK_TIMEOUT"), (inboxes, "_OVERDUE_SECONDS")):
        monkeypatch.setattr(room, name, 0.2)
    monkeypatch.setattr(monitor, "READY_TIMEOUT", 0.2)


@pytest.mark.parametrize("gate", ["open", "on trial"])
async def test_a_hanging_mount_blocks_only_its_own_rules_and_no_watchdog(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, gate: str
) -> None:
    """The rule whose outbox hangs asks first for both submit slots, or for the trial of the gate."""
    (harness.root / "nas").mkdir()
    (harness.root / "other").mkdir()
    harness.api = {"qps": 16}
    harness.more_rules = [
        {"name": "from", "inbox": "nas/in", "rescan_interval": "100ms"},
        {"name": "to", "inbox": "other", "outbox": "nas/out", "priority": 1},
    ]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, hanging_mount(harness.root / "nas"):
        manager.bind(f"\0picwish-hang-{os.getpid()}")
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@picwish-hang-{os.getpid()}")
        monkeypatch.setenv("WATCHDOG_USEC", "3000000")
        daemon = Daemon(harness.load_config(), KEY)
        running = asyncio.create_task(daemon.run())
        await wait_until(lambda: harness.daemon_report().count('"watching": true') == 2)
        if gate == "on trial":
            daemon.services.gate.close(CloseReason.API_DOWN, "it does not answer", trial=True)
        for number in range(4):
            harness.drop_file(f"{number}.jpg", seed=number, inbox="other")
        await wait_until(lambda: daemon.services.context.executor.is_stuck(WorkerKey.outbox("to")))
        harness.drop_file("a.jpg", seed=9)
        await wait_until(lambda: len(harness.jobs(State.DONE)) == 1)
        await wait_until(lambda: "its mount may be hung" in harness.daemon_report())
        messages: set[bytes] = set()
        with suppress(BlockingIOError):
            while True:
                messages.add(manager.recv(4096))
        daemon.stop()
        daemon.stop()
        async with asyncio.timeout(5):
            await running
        assert {b"READY=1", b"WATCHDOG=1"} <= messages
        assert daemon.has_stuck_threads
    assert harness.job("a.jpg").state is State.DONE
    assert harness.count_creates() == 1
    assert {job.state for job in harness.jobs()} == {State.DONE, State.QUEUED}


async def test_a_rule_can_be_moved_off_a_hanging_inbox(harness: Harness) -> None:
    (harness.root / "nas" / "in").mkdir(parents=True)
    harness.rule = {"inbox": "nas/in", "settle": "200ms"}
    daemon = Daemon(harness.load_config(), KEY, reload=lambda: (harness.load_config(), KEY))
    running = asyncio.create_task(daemon.run())
    await wait_until(lambda: '"watching": true' in harness.daemon_report())
    harness.drop_file("a.jpg", inbox="nas/in")
    await wait_until(lambda: daemon.services.inboxes.settling_count)
    with hanging_mount(harness.root / "nas"):
        await wait_until(lambda: daemon.services.context.executor.has_unfinished_calls)
        harness.rule = {"settle": "50ms"}
        harness.drop_file("b.jpg", seed=1)
        daemon.reload()
        await wait_until(lambda: harness.jobs(State.DONE))
        daemon.stop()
        daemon.stop()
        async with asyncio.timeout(5):
            await running
    assert harness.job("b.jpg").state is State.DONE


async def test_moving_a_rule_off_a_hanging_outbox_needs_a_restart(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    (harness.root / "nas" / "out").mkdir(parents=True)
    harness.rule = {"outbox": "nas/out"}
    daemon = Daemon(harness.load_config(), KEY, reload=lambda: (harness.load_config(), KEY))
    running = asyncio.create_task(daemon.run())
    await wait_until(lambda: '"watching": true' in harness.daemon_report())
    with hanging_mount(harness.root / "nas"):
        harness.drop_file("a.jpg")
        await wait_until(lambda: daemon.services.context.executor.is_stuck(WorkerKey.outbox("scans")))
        daemon.reload()
        assert "config.needs_restart" not in capsys.readouterr().out
        harness.rule = {"outbox": "outbox"}
        daemon.reload()
        assert "config.needs_restart" in capsys.readouterr().out
        daemon.stop()
        daemon.stop()
        async with asyncio.timeout(5):
            await running
        assert await harness.run_once() == 0
    assert harness.results() == {"a.jpg"}


async def test_files_on_a_hanging_mount_are_logged_once_and_validated_later(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    (harness.root / "nas" / "in").mkdir(parents=True)
    harness.rule = {"inbox": "nas/in", "settle": "200ms"}
    daemon = Daemon(harness.load_config(), KEY)
    running = asyncio.create_task(daemon.run())
    await wait_until(lambda: '"watching": true' in harness.daemon_report())
    harness.drop_file("a.jpg", inbox="nas/in")
    await wait_until(lambda: daemon.services.inboxes.settling_count)
    output: list[str] = []

    def was_logged(what: str) -> bool:
        output.extend(line for line in capsys.readouterr().out.splitlines() if "judging.waits" in line)
        return any(what in line for line in output)

    with hanging_mount(harness.root / "nas"):
        await wait_until(lambda: daemon.services.context.executor.has_unfinished_calls)
        await wait_until(lambda: was_logged("may be hung"))
        start = daemon.services.context.clock.monotonic()
        # The watchers are checked once a second.
        await wait_until(lambda: daemon.services.context.clock.monotonic() > start + 2)
    await wait_until(lambda: harness.jobs(State.DONE))
    daemon.stop()
    assert await running == 0
    assert not was_logged("anything else")
    assert len(output) == 1


async def test_a_mount_with_a_dead_server_is_waited_for_and_holds_no_job(harness: Harness) -> None:
    """Every access fails with "Transport endpoint is not connected"."""
    (harness.root / "nas").mkdir()
    harness.rule = {"inbox": "nas/in", "outbox": "nas/out", "on_success": "move", "archive": "nas/archive"}
    harness.more_rules = [
        {"name": "to", "inbox": "inbox", "outbox": "nas/to"},
        {"name": "well", "inbox": "well", "outbox": "outbox"},
    ]
    for folder in ("in", "out", "to", "archive"):
        (harness.root / "nas" / folder).mkdir()
    harness.drop_file("a.jpg", seed=1)
    harness.drop_file("b.jpg", seed=2, inbox="nas/in")
    harness.drop_file("c.jpg", seed=3, inbox="well")
    assert await harness.run_once() == 0
    harness.drop_file("a2.jpg", seed=4)
    harness.drop_file("b2.jpg", seed=5, inbox="nas/in")
    harness.drop_file("c2.jpg", seed=6, inbox="well")
    with hanging_mount(harness.root / "nas", dead=True):
        assert await harness.run_once() == 1
        assert "Transport endpoint is not connected" in harness.daemon_report()
        assert harness.job("a2.jpg").state is State.QUEUED
        assert "Transport endpoint is not connected" in (harness.job("a2.jpg").note or "")
        assert harness.job("c2.jpg").state is State.DONE
    assert await harness.run_once() == 0
    assert {str(job.relative): job.state for job in harness.jobs()} == dict.fromkeys(
        ("a.jpg", "b.jpg", "c.jpg", "a2.jpg", "b2.jpg", "c2.jpg"), State.DONE
    )


@pytest.mark.parametrize("dead", [False, True])
def test_check_names_hanging_folders_and_ends(
    harness: Harness, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, dead: bool
) -> None:
    (harness.root / "nas").mkdir()
    harness.rule = {"inbox": "nas/in", "outbox": "nas/out"}
    monkeypatch.setenv("PICWISH_API_KEY", KEY)
    with hanging_mount(harness.root / "nas", dead=dead):
        assert main(["check", "-c", str(harness.write_config())]) == 1
    output = capsys.readouterr().out
    if not dead:
        assert f"FAIL  inbox of scans: {harness.root}/nas/in: it has not answered for 0.2 s\n" in output
        assert f"FAIL  outbox of scans: {harness.root}/nas/out: it has not answered for 0.2 s\n" in output
    else:
        assert f"FAIL  inbox of scans: {harness.root}/nas/in: Transport endpoint is not connected\n" in output
    assert "ok    journal" in output


async def test_why_and_plan_answer_beside_a_hanging_mount(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    nas = harness.root / "nas"
    (nas / "in").mkdir(parents=True)
    harness.rule = {"outbox": "nas/to"}
    harness.more_rules = [
        {"name": "from", "inbox": "nas/in", "outbox": "nas/out", "if_exists": "skip"},
        {"name": "well", "inbox": "well", "outbox": "outbox"},
    ]
    for seed, (name, inbox) in enumerate((("a.jpg", "inbox"), ("b.jpg", "nas/in"), ("c.jpg", "well"))):
        harness.drop_file(name, seed=seed, inbox=inbox)
    assert await harness.run_once() == 0
    harness.drop_file("new.jpg", seed=7)
    harness.drop_file("copy.jpg", seed=0)
    file = str(harness.write_config())

    def run_command(*command: str) -> tuple[int, str]:
        codes: list[int] = []
        asking = threading.Thread(target=lambda: codes.append(main([*command, "-c", file])), daemon=True)
        asking.start()
        asking.join(20)
        assert codes, f"{command} does not come back"
        return codes[0], capsys.readouterr().out

    with hanging_mount(nas):
        code, text = run_command("why", str(nas / "in" / "b.jpg"))
        assert code == 0
        assert "it is done" in text
        assert f"the inbox {nas / 'in'}: it has not answered for 0.2 s" in text
        code, text = run_command("why", str(nas / "in" / "never.jpg"))
        assert code == 1
        assert "it has not answered for 0.2 s; check the server that it is mounted from" in text
        assert "it is done" in run_command("why", str(harness.inbox / "a.jpg"))[1]
        assert (
            f"the outbox {nas / 'to'} cannot be used: it has not answered for 0.2 s"
            in run_command("why", str(harness.inbox / "new.jpg"))[1]
        )
        first = harness.job("a.jpg").id
        assert f"as a copy it gets the result of job {first}" in run_command("why", str(harness.inbox / "copy.jpg"))[1]
        code, text = run_command("plan", "--json")
        assert code == 1
        rows = {row["rule"]: row for row in json.loads(text)["rules"]}
        assert "it has not answered for" in rows["from"]["away"]
        assert (rows["scans"]["images"], rows["scans"]["copies"], rows["well"]["images"]) == (1, 1, 0)
