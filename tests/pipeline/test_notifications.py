"""People are told by the daemon at work, and whatever goes wrong with that does not touch an image."""

import asyncio
import json
import logging
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from picwish_watchd.cli.main import main
from picwish_watchd.daemon.daemon import Daemon
from picwish_watchd.job import State
from picwish_watchd.notify.state_file import place_of
from picwish_watchd.simulator import Fault, Reset
from tests.support.ears import Hook, Post, program
from tests.support.house import KEY, House, Process, until


def notify(house: House, *entries: dict[str, Any]) -> None:
    house.top = {**house.top, "notify": list(entries)}


def to(hook: Hook, **more: Any) -> dict[str, Any]:
    return {"to": "webhook", "url": hook.url, **more}


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked at once a second or once a minute is looked at all the time."""
    monkeypatch.setattr("picwish_watchd.notify.dispatcher._LOOK", 0.05)
    monkeypatch.setattr("picwish_watchd.notify.alert_lifecycle.PATIENCE", 0.1)
    monkeypatch.setattr("picwish_watchd.notify.alerts._LOOK", 0.1)
    monkeypatch.setattr("picwish_watchd.notify.alerts._COUNT", 0.1)


async def test_a_run_tells_of_what_it_held_and_refused_before_it_ends(house: House, tmp_path: Path) -> None:
    house.rule = {"settle_timeout": "100ms"}
    house.api = {"qps": 10}
    tell = program(tmp_path, "open(FOLDER + '/told', 'a').write(os.environ['PICWISH_SUBJECT'] + '\\n')")
    with Hook() as hook, Post() as post:
        mail = {"to": "email", "server": "127.0.0.1", "port": post.port, "security": "none"}
        mail |= {"sender": "watchd@studio.example", "recipients": ["ada@studio.example"], "events": ["held"]}
        notify(house, to(hook), mail, {"to": "command", "run": [str(tell)], "events": ["rejected"]})
        house.simulator.script.add(Fault("create", Reset(at="work")))
        house.drop("Müller\nBcc: eve@example.org.jpg", seed=1)
        house.drop("notes.jpg", b"no picture at all" * 50)
        assert await house.drain() == 1
        subjects = sorted(hook.subjects())
        assert subjects == ["Müller\\nBcc: eve@example.org.jpg is held", "notes.jpg is refused"]
        [mailed] = post.mails
    assert mailed.message["Subject"].endswith("Müller\\nBcc: eve@example.org.jpg is held")
    assert mailed.message["Bcc"] is None
    assert "`picwish-watchd retry 1`" in mailed.message.get_content()
    assert (tmp_path / "told").read_text() == "notes.jpg is refused\n"
    waiting = json.loads(place_of(house.journal).read_text())["waiting"]
    assert waiting == []


@pytest.mark.parametrize("trouble", ["hangs", "is gone", "refuses", "is killed"])
async def test_a_notifier_that_fails_costs_no_image_and_no_time(house: House, tmp_path: Path, trouble: str) -> None:
    house.rule = {"settle_timeout": "100ms"}
    body = {"hangs": "time.sleep(20)", "is killed": "os.kill(os.getpid(), 9)"}.get(trouble, "")
    with Hook(*[500] * 99) as hook:
        entry = to(hook) if trouble == "refuses" else to(hook) | {"url": "http://127.0.0.1:9/"}
        if body:
            entry = {"to": "command", "run": [str(program(tmp_path, body))], "timeout": "300ms"}
        notify(house, entry)
        for number in range(4):
            house.drop(f"{number}.jpg", seed=number)
        house.drop("notes.jpg", b"no picture at all" * 50)
        began = time.monotonic()
        assert await house.drain() == 1
        assert time.monotonic() - began < 6
    assert len(house.jobs(State.DONE)) == 4
    [waiting] = json.loads(place_of(house.journal).read_text())["waiting"]
    assert waiting["notice"]["subject"] == "notes.jpg is refused", "it is told by the next run"


async def test_a_daemon_that_is_stopped_does_not_wait_for_a_message_for_long(house: House) -> None:
    house.rule = {"settle_timeout": "100ms"}
    with Hook(pause=30) as hook:
        notify(house, to(hook))
        house.drop("notes.jpg", b"no picture at all" * 50)
        process = Process(house).start()
        await until(lambda: house.journal.exists() and house.jobs(State.REJECTED))
        process.child.send_signal(signal.SIGTERM)
        await until(lambda: hook.heads)  # it is told at once, for it might never run again
        process.child.send_signal(signal.SIGTERM)
        assert await process.ended(4) == 0
    assert json.loads(place_of(house.journal).read_text())["waiting"]
    assert "Traceback" not in process.errors.read_text()
    assert "very-secret" not in process.errors.read_text()


async def test_a_reload_takes_a_new_notifier_and_an_inbox_that_went_is_told(house: House, hurried: None) -> None:
    house.rule = {"rescan_interval": "200ms"}
    daemon = Daemon(house.config(), KEY, reload=lambda: (house.config(), KEY))
    running = asyncio.create_task(daemon.run())
    with Hook() as hook:
        await until(lambda: "watching" in house.report())
        notify(house, to(hook))
        daemon.reload()
        house.inbox.rename(house.root / "elsewhere")
        await until(lambda: len(hook.heard) == 1)
        (house.root / "elsewhere").rename(house.inbox)
        await until(lambda: len(hook.heard) == 2)
        daemon.stop()
        assert await running == 0
    gone, back = hook.heard
    assert (gone["event"], gone["folder"], gone["rule"], gone["over"]) == ("root_lost", "inbox", "scans", False)
    assert str(house.inbox) in gone["text"]
    assert back["subject"].startswith("The inbox of rule scans is back, after ")
    assert back["over"] is True


async def test_an_outbox_that_went_is_told_though_nothing_is_to_be_delivered(house: House, hurried: None) -> None:
    house.drop("a.jpg")
    with Hook() as hook:
        notify(house, to(hook))
        daemon = Daemon(house.config(), KEY)
        running = asyncio.create_task(daemon.run())
        await until(lambda: house.journal.exists() and house.jobs(State.DONE))
        house.outbox.rename(house.root / "elsewhere")
        await until(lambda: len(hook.heard) == 1)
        (house.root / "elsewhere").rename(house.outbox)
        await until(lambda: len(hook.heard) == 2)
        daemon.stop()
        assert await running == 0
    assert hook.heard[0]["subject"] == "The outbox of rule scans cannot be used"
    assert "it was there before and is away" in hook.heard[0]["text"]
    assert hook.heard[1]["subject"].startswith("The outbox of rule scans is back")


async def test_a_flood_that_waits_is_told_with_its_cost(house: House, hurried: None) -> None:
    house.top = {"budget": {"burst": {"images": 1, "per": "10m"}}}
    for number in range(4):
        house.drop(f"{number}.jpg", seed=number)
    with Hook() as hook:
        notify(house, to(hook))
        daemon = Daemon(house.config(), KEY)
        running = asyncio.create_task(daemon.run())
        await until(lambda: hook.heard)
        daemon.stop()
        assert await running == 0
    assert (hook.heard[0]["code"], hook.heard[0]["count"], hook.heard[0]["credits"]) == ("burst", 3, 15)
    assert "`picwish-watchd approve scans`" in hook.heard[0]["text"]


async def test_a_fault_in_the_telling_ends_the_telling_and_not_the_work(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("picwish_watchd.notify.dispatcher.view_of", lambda *_: 1 / 0)
    house.drop("a.jpg")
    with Hook() as hook:
        notify(house, to(hook))
        assert await house.drain() == 0
    assert hook.heard == []


@pytest.fixture
def own_log() -> Iterator[None]:
    """A command sets the log up for its process, which here is everybody's."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_notify_test_tells_of_each_whether_it_went(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], own_log: None
) -> None:
    config = tmp_path / "watchd.yaml"
    with Hook() as hook:
        entries = f"- {{to: webhook, url: '{hook.url}'}}\n- {{to: command, run: [./nothing]}}\n"
        config.write_text(f"notify:\n{entries}rules:\n- {{name: scans, inbox: in, outbox: out}}\n")
        assert main(["notify", "test", "-c", str(config)]) == 1
        told = capsys.readouterr().out.splitlines()
        assert told[0] == "sent  1 webhook 127.0.0.1"
        assert told[1].startswith(f"FAIL  2 command nothing: {tmp_path}/nothing cannot be run: No such file")
        assert main(["notify", "test", "--to", "1", "-c", str(config)]) == 0
        assert main(["notify", "test", "--to", "3", "-c", str(config)]) == 2
        assert "from 1 to 2" in capsys.readouterr().err
    assert [each["event"] for each in hook.heard] == ["test", "test"]
    assert main(["check", "-c", str(config)]) != 0
    assert f"FAIL  notifier 2, command nothing: {tmp_path}/nothing is no program" in capsys.readouterr().out
    config.write_text("rules:\n- {name: scans, inbox: in, outbox: out}\n")
    assert main(["notify", "test", "-c", str(config)]) == 1
    assert "has no notify:" in capsys.readouterr().err
