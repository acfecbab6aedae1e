"""The daemon sends notifications while it works, and a failure of them never affects an image."""

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
from picwish_watchd.notify.state_file import state_path
from picwish_watchd.simulator import Fault, Reset
from tests.support.fake_receivers import MailServer, WebhookReceiver, write_program
from tests.support.harness import KEY, DaemonProcess, Harness, wait_until


def configure_notifiers(harness: Harness, *entries: dict[str, Any]) -> None:
    harness.top_level = {**harness.top_level, "notify": list(entries)}


def webhook_config(webhook: WebhookReceiver, **more: Any) -> dict[str, Any]:
    return {"to": "webhook", "url": webhook.url, **more}


@pytest.fixture
def fast_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make checks that run once a second or once a minute run all the time."""
    monkeypatch.setattr("picwish_watchd.notify.dispatcher._CHECK_INTERVAL", 0.05)
    monkeypatch.setattr("picwish_watchd.notify.alert_lifecycle.ALERT_DEBOUNCE", 0.1)
    monkeypatch.setattr("picwish_watchd.notify.alerts._OUTBOX_CHECK_INTERVAL", 0.1)
    monkeypatch.setattr("picwish_watchd.notify.alerts._FLOOD_COUNT_INTERVAL", 0.1)


async def test_a_run_notifies_of_held_and_rejected_images_before_it_ends(harness: Harness, tmp_path: Path) -> None:
    harness.rule = {"settle_timeout": "100ms"}
    harness.api = {"qps": 10}
    program = write_program(tmp_path, "open(FOLDER + '/subjects', 'a').write(os.environ['PICWISH_SUBJECT'] + '\\n')")
    with WebhookReceiver() as webhook, MailServer() as mail_server:
        mail = {"to": "email", "server": "127.0.0.1", "port": mail_server.port, "security": "none"}
        mail |= {"sender": "watchd@studio.example", "recipients": ["ada@studio.example"], "events": ["held"]}
        configure_notifiers(
            harness, webhook_config(webhook), mail, {"to": "command", "run": [str(program)], "events": ["rejected"]}
        )
        harness.simulator.script.add(Fault("create", Reset(at="work")))
        harness.drop_file("Müller\nBcc: eve@example.org.jpg", seed=1)
        harness.drop_file("notes.jpg", b"no picture at all" * 50)
        assert await harness.run_once() == 1
        subjects = sorted(webhook.subjects())
        assert subjects == ["Müller\\nBcc: eve@example.org.jpg is held", "notes.jpg is rejected"]
        [mailed] = mail_server.mails
    assert mailed.message["Subject"].endswith("Müller\\nBcc: eve@example.org.jpg is held")
    assert mailed.message["Bcc"] is None
    assert "`picwish-watchd retry 1`" in mailed.message.get_content()
    assert (tmp_path / "subjects").read_text() == "notes.jpg is rejected\n"
    waiting = json.loads(state_path(harness.journal).read_text())["waiting"]
    assert waiting == []


@pytest.mark.parametrize("failure", ["hangs", "is gone", "refuses", "is killed"])
async def test_a_failing_notifier_delays_no_image(harness: Harness, tmp_path: Path, failure: str) -> None:
    harness.rule = {"settle_timeout": "100ms"}
    body = {"hangs": "time.sleep(20)", "is killed": "os.kill(os.getpid(), 9)"}.get(failure, "")
    with WebhookReceiver(*[500] * 99) as webhook:
        entry = (
            webhook_config(webhook)
            if failure == "refuses"
            else webhook_config(webhook) | {"url": "http://127.0.0.1:9/"}
        )
        if body:
            entry = {"to": "command", "run": [str(write_program(tmp_path, body))], "timeout": "300ms"}
        configure_notifiers(harness, entry)
        for number in range(4):
            harness.drop_file(f"{number}.jpg", seed=number)
        harness.drop_file("notes.jpg", b"no picture at all" * 50)
        began = time.monotonic()
        assert await harness.run_once() == 1
        assert time.monotonic() - began < 6
    assert len(harness.jobs(State.DONE)) == 4
    [waiting] = json.loads(state_path(harness.journal).read_text())["waiting"]
    assert waiting["notice"]["subject"] == "notes.jpg is rejected", "the next run sends it"


async def test_a_stop_does_not_wait_long_for_a_message(harness: Harness) -> None:
    harness.rule = {"settle_timeout": "100ms"}
    with WebhookReceiver(pause=30) as webhook:
        configure_notifiers(harness, webhook_config(webhook))
        harness.drop_file("notes.jpg", b"no picture at all" * 50)
        process = DaemonProcess(harness).start()
        await wait_until(lambda: harness.journal.exists() and harness.jobs(State.REJECTED))
        process.child.send_signal(signal.SIGTERM)
        # The daemon sends it before it ends: it may never run again.
        await wait_until(lambda: webhook.request_headers)
        process.child.send_signal(signal.SIGTERM)
        assert await process.wait_for_exit(4) == 0
    assert json.loads(state_path(harness.journal).read_text())["waiting"]
    assert "Traceback" not in process.errors.read_text()
    assert "very-secret" not in process.errors.read_text()


async def test_a_reload_adds_a_notifier_that_reports_a_missing_inbox(harness: Harness, fast_polling: None) -> None:
    harness.rule = {"rescan_interval": "200ms"}
    daemon = Daemon(harness.load_config(), KEY, reload=lambda: (harness.load_config(), KEY))
    running = asyncio.create_task(daemon.run())
    with WebhookReceiver() as webhook:
        await wait_until(lambda: "watching" in harness.daemon_report())
        configure_notifiers(harness, webhook_config(webhook))
        daemon.reload()
        harness.inbox.rename(harness.root / "elsewhere")
        await wait_until(lambda: len(webhook.requests) == 1)
        (harness.root / "elsewhere").rename(harness.inbox)
        await wait_until(lambda: len(webhook.requests) == 2)
        daemon.stop()
        assert await running == 0
    gone, back = webhook.requests
    assert (gone["event"], gone["folder"], gone["rule"], gone["over"]) == ("root_lost", "inbox", "scans", False)
    assert str(harness.inbox) in gone["text"]
    assert back["subject"].startswith("The inbox of rule scans is back, after ")
    assert back["over"] is True


async def test_a_missing_outbox_is_notified_though_nothing_is_due(harness: Harness, fast_polling: None) -> None:
    harness.drop_file("a.jpg")
    with WebhookReceiver() as webhook:
        configure_notifiers(harness, webhook_config(webhook))
        daemon = Daemon(harness.load_config(), KEY)
        running = asyncio.create_task(daemon.run())
        await wait_until(lambda: harness.journal.exists() and harness.jobs(State.DONE))
        harness.outbox.rename(harness.root / "elsewhere")
        await wait_until(lambda: len(webhook.requests) == 1)
        (harness.root / "elsewhere").rename(harness.outbox)
        await wait_until(lambda: len(webhook.requests) == 2)
        daemon.stop()
        assert await running == 0
    assert webhook.requests[0]["subject"] == "The outbox of rule scans cannot be used"
    assert "it was there before and is away" in webhook.requests[0]["text"]
    assert webhook.requests[1]["subject"].startswith("The outbox of rule scans is back")


async def test_a_waiting_flood_is_notified_with_its_cost(harness: Harness, fast_polling: None) -> None:
    harness.top_level = {"budget": {"burst": {"images": 1, "per": "10m"}}}
    for number in range(4):
        harness.drop_file(f"{number}.jpg", seed=number)
    with WebhookReceiver() as webhook:
        configure_notifiers(harness, webhook_config(webhook))
        daemon = Daemon(harness.load_config(), KEY)
        running = asyncio.create_task(daemon.run())
        await wait_until(lambda: webhook.requests)
        daemon.stop()
        assert await running == 0
    assert (webhook.requests[0]["code"], webhook.requests[0]["count"], webhook.requests[0]["credits"]) == (
        "burst",
        3,
        15,
    )
    assert "`picwish-watchd approve scans`" in webhook.requests[0]["text"]


async def test_a_bug_in_notifications_ends_them_and_not_the_work(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("picwish_watchd.notify.dispatcher.collect_alerts", lambda *_: 1 / 0)
    harness.drop_file("a.jpg")
    with WebhookReceiver() as webhook:
        configure_notifiers(harness, webhook_config(webhook))
        assert await harness.run_once() == 0
    assert webhook.requests == []


@pytest.fixture
def restore_logging() -> Iterator[None]:
    """Restore logging, which the command configures for the whole process."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_notify_test_reports_the_result_of_each_channel(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], restore_logging: None
) -> None:
    config = tmp_path / "watchd.yaml"
    with WebhookReceiver() as webhook:
        entries = f"- {{to: webhook, url: '{webhook.url}'}}\n- {{to: command, run: [./nothing]}}\n"
        config.write_text(f"notify:\n{entries}rules:\n- {{name: scans, inbox: in, outbox: out}}\n")
        assert main(["notify", "test", "-c", str(config)]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "sent  1 webhook 127.0.0.1"
        assert lines[1].startswith(f"FAIL  2 command nothing: {tmp_path}/nothing cannot be run: No such file")
        assert main(["notify", "test", "--to", "1", "-c", str(config)]) == 0
        assert main(["notify", "test", "--to", "3", "-c", str(config)]) == 2
        assert "from 1 to 2" in capsys.readouterr().err
    assert [each["event"] for each in webhook.requests] == ["test", "test"]
    assert main(["check", "-c", str(config)]) != 0
    output = capsys.readouterr().out
    assert f"FAIL  notifier 2, command nothing: {tmp_path}/nothing is not an executable program" in output
    config.write_text("rules:\n- {name: scans, inbox: in, outbox: out}\n")
    assert main(["notify", "test", "-c", str(config)]) == 1
    assert "has no notify:" in capsys.readouterr().err
