"""The daemon as a process of its own, with the simulator behind real HTTP."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from picwish_watchd.job import State
from picwish_watchd.simulator import Fault, NeverEnd
from tests.support import fork_server
from tests.support.harness import KEY, DaemonProcess, Harness, wait_until
from tests.support.sample_images import BASIC_KINDS, KINDS, file_name, make_image

DONE = State.DONE


def count_done(harness: Harness) -> int:
    return len(harness.jobs(DONE)) if harness.journal.exists() else 0


def run_command(harness: Harness, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command beside the daemon and return the finished process."""
    config = harness.root / "watchd.yaml"
    return fork_server.run_fork(*arguments, "-c", str(config), environ={**os.environ, "PICWISH_API_KEY": KEY})


@pytest.mark.untraced
@pytest.mark.parametrize(("sync", "model", "return_type"), list(product((0, 1), (0, 1), (1, 2))))
async def test_a_directory_of_mixed_pictures_goes_through_the_daemon(
    harness: Harness, sync: int, model: int, return_type: int
) -> None:
    harness.rule = {"sync": sync, "type": model, "return_type": return_type, "settle": "50ms", "sidecar": True}
    harness.drop_file(file_name("jpeg", "there before"), seed=99)
    process = DaemonProcess(harness, fresh=True).start()
    await wait_until(lambda: count_done(harness) == 1)
    for number, kind in enumerate(KINDS):
        harness.drop_file(
            f"Ordner {number % 3}/Müller & Söhne {number}{Path(file_name(kind)).suffix.upper()}", kind=kind
        )
    await wait_until(lambda: count_done(harness) == 1 + len(KINDS))
    assert await process.stop() == 0
    assert (
        sum(job.credits for job in harness.jobs()) == harness.simulator.credits_used == (5, 4)[model] * (1 + len(KINDS))
    )
    assert harness.count_creates() == 1 + len(KINDS)
    assert {str(job.output) for job in harness.jobs()} == {
        str(harness.outbox / name) for name in harness.results() if not name.endswith(".json")
    }


@pytest.mark.untraced
async def test_a_picture_dropped_while_it_runs_is_noticed_at_once(harness: Harness) -> None:
    process = DaemonProcess(harness, fresh=True).start()
    await wait_until(lambda: "daemon.ready" in process.errors.read_text())
    harness.drop_file("new/folder/a.jpg")
    # The default `rescan_interval` is 60 s.
    await wait_until(lambda: count_done(harness) == 1, seconds=10)
    assert await process.stop() == 0


@pytest.mark.untraced
async def test_a_kill_with_pending_tasks_pays_nothing_twice(harness: Harness) -> None:
    harness.simulator.settings = replace(harness.simulator.settings, processing=(1.0, 0.1))
    for number in range(6):
        harness.drop_file(f"{number}.jpg", seed=number)
    process = DaemonProcess(harness, fresh=True).start()
    await wait_until(lambda: harness.journal.exists() and len(harness.jobs(State.PENDING)) == 6)
    assert await process.stop(signal.SIGKILL) == -signal.SIGKILL
    again = DaemonProcess(harness, fresh=True).start()
    await wait_until(lambda: count_done(harness) == 6)
    assert await again.stop() == 0
    assert harness.count_creates() == 6
    assert harness.simulator.credits_used == 30


@pytest.mark.untraced
async def test_requests_before_a_kill_count_against_the_next_runs_rate(harness: Harness) -> None:
    harness.simulator.settings = replace(harness.simulator.settings, qps=0.9)
    harness.api = {"qps": 0.5}

    def statuses() -> list[int]:
        return [request.status for request in harness.simulator.requests if request.status is not None]

    for number in (1, 2):
        process = DaemonProcess(harness).start()
        await wait_until(lambda number=number: len(statuses()) == number)
        await process.stop(signal.SIGKILL)
    assert statuses() == [404, 404], (
        "each start asks once; one in 1.1 s is allowed, and the daemon means to ask one in 2"
    )


@pytest.mark.untraced
async def test_more_posts_can_be_open_than_a_process_may_have_files_by_default(harness: Harness) -> None:
    harness.api, harness.rule = {"max_pending": 100}, {"sync": 1}
    harness.simulator.script.add(Fault("create", NeverEnd(), times=70))
    for number in range(71):
        harness.drop_file(f"{number}.png", make_image("png", 16, 16, seed=number))
    process = DaemonProcess(harness, prefix=("sh", "-c", 'ulimit -Sn 64 && exec "$@"', "sh")).start()
    await wait_until(lambda: count_done(harness) == 1)
    await process.stop(signal.SIGKILL)
    assert harness.count_creates() == 71


@pytest.mark.untraced
async def test_sigterm_ends_with_0_and_loses_nothing(harness: Harness) -> None:
    harness.simulator.settings = replace(harness.simulator.settings, processing=(0.8, 0.1), latency=0.05)
    for number in range(8):
        harness.drop_file(f"{number}.jpg", seed=number)
    process = DaemonProcess(harness, fresh=True).start()
    await wait_until(lambda: harness.count_creates() >= 3)
    assert await process.stop() == 0
    assert not harness.jobs(State.SUBMITTING, State.HELD)
    again = DaemonProcess(harness, ("--once",), fresh=True).start()
    assert await again.wait_for_exit() == 0
    assert harness.count_creates() == 8
    assert len(harness.results()) == 8


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_the_graceful_stop_at_once(harness: Harness, number: signal.Signals) -> None:
    harness.simulator.settings = replace(harness.simulator.settings, latency=60.0)
    harness.drop_file("a.jpg")
    process = DaemonProcess(harness, fresh=True).start()
    await wait_until(lambda: harness.count_creates() == 1)
    process.child.send_signal(number)
    await wait_until(lambda: "daemon.stopping" in process.errors.read_text())
    assert process.child.poll() is None
    process.child.send_signal(number)
    # The first signal alone would grant 30 s.
    assert await process.wait_for_exit(seconds=15) == 0
    harness.simulator.settings = replace(harness.simulator.settings, latency=0.0)
    again = DaemonProcess(harness, ("--once",), fresh=True).start()
    assert await again.wait_for_exit() == 1
    assert harness.count_creates() == 1
    # Nobody can know whether PicWish accepted the request.
    assert [job.state for job in harness.jobs()] == [State.HELD]


@pytest.mark.untraced
async def test_many_kills_at_any_moment_never_pay_twice(harness: Harness) -> None:
    harness.simulator.settings = replace(harness.simulator.settings, processing=(0.1, 0.5), latency=0.01)
    for number in range(24):
        harness.drop_file(f"{number % 4}/{number}.jpg", seed=number)
    for moment in (0.5, 0.62, 0.71, 0.8, 0.9, 1.0, 0.66, 0.75):
        process = DaemonProcess(harness, fresh=True).start()
        await asyncio.sleep(moment)
        await process.stop(signal.SIGKILL)
    code = await DaemonProcess(harness, ("--once",), fresh=True).start().wait_for_exit()
    states = Counter(job.state for job in harness.jobs())
    assert set(states) <= {DONE, State.HELD}
    assert states.total() == 24
    assert code in (0, 1)
    assert len(harness.results()) == states[DONE]
    posted = Counter(
        request.sha256 for request in harness.simulator.requests if request.operation == "create" and request.sha256
    )
    assert max(posted.values()) == 1
    assert not list(harness.root.rglob("*.part"))


@pytest.mark.untraced
async def test_a_second_daemon_exits_75_and_names_the_first(harness: Harness) -> None:
    first = DaemonProcess(harness, fresh=True).start()
    await wait_until(lambda: "daemon.ready" in first.errors.read_text())
    second = DaemonProcess(harness, fresh=True).start()
    assert await second.wait_for_exit() == 75
    assert f"pid {first.child.pid}" in second.errors.read_text()
    assert await first.stop() == 0


async def test_commands_work_beside_the_daemon(harness: Harness) -> None:
    harness.drop_file("good.jpg")
    harness.drop_file("bad\n\x1b[31m.jpg", b"no picture" * 50)
    process = DaemonProcess(harness, fresh=True).start()
    await wait_until(lambda: count_done(harness) == 1 and len(harness.jobs(State.REJECTED)) == 1)
    status = json.loads(run_command(harness, "status", "--json").stdout)
    assert status["running"] is True
    assert status["pid"] == process.child.pid
    assert status["jobs"]["done"] == 1
    assert status["credits"]["today"] == 5
    assert status["blocked"] is None
    assert [(rule["name"], rule["watching"]) for rule in status["rules"]] == [("scans", True)]
    lines = [json.loads(line) for line in run_command(harness, "jobs", "--json").stdout.splitlines()]
    assert {line["state"] for line in lines} == {"done", "rejected"}
    assert [line["rule"] for line in lines] == ["scans", "scans"]
    one = json.loads(run_command(harness, "show", str(lines[0]["id"]), "--json").stdout)
    assert one["history"]
    for words in (["status"], ["jobs"], ["jobs", "--state", "done", "--rule", "scans"], ["show", "1"], ["check"]):
        output = run_command(harness, *words)
        assert output.returncode == 0, output.stderr
        assert "\x1b[31m" not in output.stdout
    assert run_command(harness, "show", "99").returncode == 1
    assert await process.stop() == 0
    assert json.loads(run_command(harness, "status", "--json").stdout)["running"] is False


async def test_the_configuration_is_read_again_on_sighup(harness: Harness) -> None:
    process = DaemonProcess(harness, fresh=True).start()
    await wait_until(lambda: "daemon.ready" in process.errors.read_text())
    (harness.root / "watchd.yaml").write_text("rules: [{name: scans, inbocks: x}]")
    process.child.send_signal(signal.SIGHUP)
    await wait_until(lambda: any(event["event"] == "config.refused" for event in process.logged_events()))
    harness.write_config()
    output = run_command(harness, "status").stdout
    assert "reload refused, the old configuration is in force" in output
    assert "inbocks" in output
    # A changed journal path needs a restart; until then nothing of the new configuration is used.
    harness.top_level["journal"] = "elsewhere/journal.db"
    harness.more_rules = [{"name": "more", "inbox": "more"}]
    harness.drop_file("a.jpg", inbox="more")
    harness.write_config()
    process.child.send_signal(signal.SIGHUP)
    await wait_until(lambda: count_done(harness) == 1)
    assert await process.stop() == 0
    assert harness.job("a.jpg").rule == "more"
    assert not (harness.root / "elsewhere").exists()
    assert any(event["event"] == "config.needs_restart" for event in process.logged_events())


async def test_a_sighup_during_startup_is_obeyed_later_and_ends_nothing(harness: Harness) -> None:
    process = DaemonProcess(harness, fresh=True).start()
    maps = Path(f"/proc/{process.child.pid}/maps")
    # Wait until Pillow is loaded, which takes longest.
    await wait_until(lambda: "_imaging" in maps.read_text())
    process.child.send_signal(signal.SIGHUP)
    await wait_until(lambda: process.child.poll() is not None or "config.reloaded" in process.errors.read_text())
    assert await process.stop() == 0


@pytest.mark.untraced
async def test_a_missing_inbox_is_watched_once_it_appears(harness: Harness) -> None:
    harness.more_rules = [{"name": "late", "inbox": "late", "rescan_interval": "200ms"}]
    process = DaemonProcess(harness, fresh=True).start()
    await wait_until(lambda: "daemon.ready" in process.errors.read_text())
    harness.drop_file("a.jpg", inbox="late")
    await wait_until(lambda: count_done(harness) == 1)
    assert await process.stop() == 0


@pytest.mark.untraced
@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("rules: [{name: a, inbox: in, outbox: out}]\napi: {key_file: nowhere.key}", 78, "nowhere.key"),
        ("rules: [{name: a, inbocks: in}]\nqps: no", 78, "inbocks"),
        ("rules: [", 78, "is not YAML"),
    ],
)
async def test_a_wrong_configuration_exits_78_in_words(tmp_path: Path, text: str, code: int, words: str) -> None:
    file = tmp_path / "watchd.yaml"
    file.write_text(text)
    output = subprocess.run(
        [sys.executable, "-m", "picwish_watchd", "run", "-c", str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert output.returncode == code
    assert words in output.stderr
    assert "Traceback" not in output.stderr


@pytest.mark.untraced
async def test_the_key_appears_nowhere(harness: Harness) -> None:
    harness.top_level = {"log": {"level": "debug"}}
    for number, kind in enumerate(BASIC_KINDS):
        harness.drop_file(file_name(kind), seed=number)
    harness.drop_file("cut.jpg", make_image("jpeg")[:50])
    harness.rule = {"settle_timeout": "100ms", "sidecar": True, "settle": 0}
    process = DaemonProcess(harness, ("--once",), fresh=True).start()
    await process.wait_for_exit()
    for path in harness.root.rglob("*"):
        if path.is_file():
            assert b"test-key-0123456789" not in path.read_bytes(), path


@pytest.mark.untraced
@pytest.mark.parametrize("read", ["closed", "never"])
async def test_an_output_that_is_closed_or_never_read_does_not_stop_the_work(harness: Harness, read: str) -> None:
    process = DaemonProcess(harness, fresh=True)
    harness.top_level["log"] = {"level": "debug"}
    file = harness.write_config()
    reader, writer = os.pipe()
    if read == "never":
        os.set_blocking(writer, False)
        with suppress(BlockingIOError):
            while True:
                os.write(writer, b"x" * 4096)
        os.set_blocking(writer, True)
    environ: dict[str, Any] = {**os.environ, "PICWISH_API_KEY": "k"}
    child = subprocess.Popen(
        [sys.executable, "-m", "picwish_watchd", "run", "-c", str(file)], stderr=writer, stdout=writer, env=environ
    )
    os.close(writer)
    if read == "closed":
        os.close(reader)
    process.child = child
    harness.drop_file("a.jpg")
    await wait_until(lambda: count_done(harness) == 1)
    child.send_signal(signal.SIGTERM)
    assert await process.wait_for_exit() == 0
    if read == "never":
        os.close(reader)


async def test_it_runs_where_stdin_stdout_and_stderr_are_closed(harness: Harness) -> None:
    harness.drop_file("a.jpg")
    process = DaemonProcess(harness, ("--once",), prefix=("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")).start()
    assert await process.wait_for_exit() == 0
    assert harness.job("a.jpg").state is State.DONE
