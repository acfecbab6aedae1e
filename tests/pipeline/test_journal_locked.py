"""A journal that another program keeps locked, or whose disk is full, leaves no inbox unwatched."""

import asyncio
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from picwish_watchd.cli.main import main
from picwish_watchd.daemon.daemon import Daemon
from picwish_watchd.job import State
from picwish_watchd.journal import locks
from tests.support.harness import KEY, Harness, wait_until


@contextmanager
def lock_journal(harness: Harness) -> Iterator[None]:
    """Keep the journal locked in a transaction of another process."""
    with open(f"{harness.journal}.write", "rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(autouse=True)
def _short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "LOCK_TIMEOUT", 0.05)


async def test_a_reload_requested_during_startup_happens_once_it_serves(harness: Harness) -> None:
    daemon = Daemon(harness.load_config(), KEY, reload=lambda: (harness.load_config(), KEY))
    harness.more_rules = [{"name": "more", "inbox": "more"}]
    harness.drop_file("a.jpg", inbox="more")
    daemon.reload()
    running = asyncio.create_task(daemon.run())
    try:
        await wait_until(lambda: running.done() or (harness.journal.exists() and harness.jobs(State.DONE)))
    finally:
        daemon.stop()
    assert await running == 0
    assert harness.job("a.jpg").rule == "more"


async def test_queued_images_of_a_renamed_rule_are_reported(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    harness.top_level["budget"] = {"per_day": 0}
    daemon = Daemon(harness.load_config(), KEY, reload=lambda: (harness.load_config(), KEY))
    running = asyncio.create_task(daemon.run())
    harness.drop_file("a.jpg")
    await wait_until(lambda: running.done() or (harness.journal.exists() and harness.jobs(State.QUEUED)))
    harness.rule = {"name": "renamed"}
    message = "1 queued image waits for rule scans, which left the configuration: put it back"
    capsys.readouterr()
    daemon.reload()
    assert message in capsys.readouterr().out
    daemon.stop()
    assert await running == 0
    for again in (["status"], ["status", "--json"]):
        assert main([*again, "-c", str(harness.root / "watchd.yaml")]) == 0
        assert message in capsys.readouterr().out


async def test_a_reload_that_cannot_be_journaled_changes_nothing(harness: Harness) -> None:
    daemon = Daemon(harness.load_config(), KEY, reload=lambda: (harness.load_config(), KEY))
    running = asyncio.create_task(daemon.run())
    await wait_until(lambda: '"watching": true' in harness.daemon_report())
    harness.rule = {"type": 1}
    with lock_journal(harness):
        daemon.reload()
    assert [inbox.rule.type for inbox in daemon.services.inboxes.list_active()] == [0]
    daemon.reload()
    assert [inbox.rule.type for inbox in daemon.services.inboxes.list_active()] == [1]
    harness.drop_file("a.jpg")
    await wait_until(lambda: bool(harness.jobs(State.DONE)))
    daemon.stop()
    await running
    assert harness.job("a.jpg").credits == 4


async def test_an_inbox_is_watched_though_its_mount_cannot_be_journaled(harness: Harness) -> None:
    harness.inbox.rmdir()
    harness.rule = {"rescan_interval": "100ms"}
    daemon = Daemon(harness.load_config(), KEY)
    running = asyncio.create_task(daemon.run())
    await wait_until(lambda: "No such file" in harness.daemon_report())
    with lock_journal(harness):
        harness.inbox.mkdir()
        await wait_until(lambda: all(inbox.is_watching for inbox in daemon.services.inboxes.list_active()), 5)
    await wait_until(lambda: daemon.services.inboxes.list_active()[0].watcher.mount is not None, 5)
    daemon.stop()
    await running


async def test_status_shows_what_happened_while_the_journal_was_locked(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("picwish_watchd.reporting.status_report._RETRY_DELAY", 0.1)
    harness.inbox.rmdir()
    harness.rule = {"rescan_interval": "100ms"}
    daemon = Daemon(harness.load_config(), KEY)
    running = asyncio.create_task(daemon.run())
    await wait_until(lambda: "No such file" in harness.daemon_report())
    with lock_journal(harness):
        harness.inbox.mkdir()
        await wait_until(lambda: all(inbox.is_watching for inbox in daemon.services.inboxes.list_active()), 5)
    await wait_until(lambda: '"watching": true' in harness.daemon_report(), 5)
    daemon.stop()
    await running


async def test_a_journal_outage_is_logged_once_and_so_is_its_end(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tries, locked_within = list[int](), locks._try_lock

    def try_and_count(fd: int, seconds: float) -> bool:
        tries.append(fd)
        return locked_within(fd, seconds)

    daemon = Daemon(harness.load_config(), KEY)
    running = asyncio.create_task(daemon.run())
    await wait_until(lambda: '"watching": true' in harness.daemon_report())
    output = ""
    for number in range(2):
        monkeypatch.setattr(locks, "_try_lock", try_and_count)
        with lock_journal(harness):
            del tries[:]
            for name in range(3):
                harness.drop_file(f"{number}-{name}.jpg", seed=3 * number + name)
                # The loop awaits this before the next pass.
                await wait_until(lambda: len(tries) > 2 * (name + 1))  # noqa: B023
        monkeypatch.setattr(locks, "_try_lock", locked_within)
        output += capsys.readouterr().out
        await wait_until(lambda: len(harness.jobs(State.DONE)) == 3 * (number + 1))  # noqa: B023

        def goes_on() -> bool:
            nonlocal output
            output += capsys.readouterr().out
            return output.count("journal.goes_on") > number  # noqa: B023

        await wait_until(goes_on)
    daemon.stop()
    assert await running == 0
    assert output.count("journal.waits") == output.count("journal.goes_on") == 2
