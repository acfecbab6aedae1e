"""Folders on another mount than before count as unavailable: nothing there is read, paid for, written or moved."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from picwish_watchd.cli.main import main
from picwish_watchd.clock import Clock
from picwish_watchd.daemon.daemon import Daemon
from picwish_watchd.fs.mounts import Mount
from picwish_watchd.job import OriginalStatus, State
from picwish_watchd.journal.writer import Journal
from picwish_watchd.outbox.originals import move_original
from tests.support.harness import KEY, DaemonProcess, Harness, wait_until
from tests.support.mounts import mount, temporary_mount, unmount
from tests.support.sample_images import make_image


@pytest.fixture
def nas(harness: Harness) -> Iterator[Path]:
    """Yield a mount point with a tmpfs on it, which is unmounted at the end."""
    with temporary_mount(harness.root / "nas") as folder:
        yield folder


async def deliver_then_unmount(harness: Harness, nas: Path) -> None:
    """Deliver `a.jpg` to the mount, unmount it, and drop `b.jpg`."""
    harness.rule = {"outbox": "nas"}
    harness.drop_file("a.jpg", seed=1)
    assert await harness.run_once() == 0
    unmount(nas)
    harness.drop_file("b.jpg", seed=2)
    assert await harness.run_once() == 1


async def test_an_unmounted_outbox_gets_no_writes_and_nothing_is_paid_for(harness: Harness, nas: Path) -> None:
    await deliver_then_unmount(harness, nas)
    assert list(nas.iterdir()) == []
    assert harness.count_creates() == 1
    mount(nas)
    assert await harness.run_once() == 0
    assert (nas / "b.jpg").exists()


async def test_approve_accepts_the_current_mount_of_an_outbox(harness: Harness, nas: Path) -> None:
    await deliver_then_unmount(harness, nas)
    assert main(["approve", "scans", "-c", str(harness.write_config())]) == 0
    assert await harness.run_once() == 0
    assert (nas / "b.jpg").exists()


def remember_on_nfs(harness: Harness, folder: Path) -> None:
    """Record that ``folder`` was last seen on an NFS mount; in truth it is on the disk of the tests."""
    journal = Journal.open_for_writing(harness.journal, Clock())
    journal.save_folder(folder, Mount("/gone", "nfs4"))
    journal.close()


async def test_status_and_log_name_the_rule_of_an_inbox_on_another_mount(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    remember_on_nfs(harness, harness.inbox)
    process = DaemonProcess(harness).start()
    await wait_until(lambda: '"watching": false' in harness.daemon_report())
    assert main(["status", "-c", str(harness.write_config())]) == 0
    assert "`picwish-watchd approve scans`" in capsys.readouterr().out
    assert await process.stop() == 0
    reasons = [line["reason"] for line in process.logged_events() if line["event"] == "inbox.away"]
    assert len(reasons) == 1
    assert reasons[0].endswith("or accept this one with `picwish-watchd approve scans`")


async def test_a_log_line_names_the_rule_of_an_outbox_on_another_mount(harness: Harness) -> None:
    remember_on_nfs(harness, harness.outbox)
    harness.outbox.mkdir()
    harness.drop_file("a.jpg")
    process = DaemonProcess(harness).start()
    await wait_until(lambda: any(line["event"] == "submit.waits" for line in process.logged_events()))
    assert await process.stop() == 0
    waits = next(line for line in process.logged_events() if line["event"] == "submit.waits")
    assert waits["reason"].endswith("or accept this one with `picwish-watchd approve scans`")


async def test_a_queued_job_waits_while_the_mount_of_its_inbox_is_away(harness: Harness, nas: Path) -> None:
    harness.rule = {"inbox": "nas"}
    (nas / "a.jpg").write_bytes(make_image("jpeg", seed=1))
    assert await harness.run_once() == 0
    harness.top_level = {"budget": {"per_day": 5}}
    image = make_image("jpeg", seed=2)
    (nas / "b.jpg").write_bytes(image)
    assert await harness.run_once() == 1
    assert harness.job("b.jpg").state is State.QUEUED
    unmount(nas)
    harness.top_level = {}
    assert await harness.run_once() == 1
    assert harness.job("b.jpg").state is State.QUEUED


async def test_a_new_mount_is_scanned_at_once_whatever_the_interval(harness: Harness, nas: Path) -> None:
    """The inbox is a folder on the mount, and `rescan_interval` is an hour."""
    full = harness.root / "elsewhere"
    (full / "in").mkdir(parents=True)
    (full / "in" / "a.jpg").write_bytes(make_image("jpeg", seed=1))
    harness.rule = {"inbox": "nas/in", "rescan_interval": "1h"}
    process = DaemonProcess(harness).start()
    await wait_until(lambda: harness.journal.exists() and '"watching": false' in harness.daemon_report())
    mount(nas, full)
    await wait_until(lambda: len(harness.jobs(State.DONE)) == 1)
    events = [line for line in process.logged_events() if line["event"] == "inbox.observed"]
    assert [line["observer"] for line in events] == ["native"]
    assert '"observer": "native"' in harness.daemon_report()
    assert await process.stop() == 0


@pytest.mark.parametrize("if_exists", ["rename", "skip"])
async def test_an_unmounted_outbox_is_not_mistaken_for_an_empty_one(
    harness: Harness, nas: Path, if_exists: str
) -> None:
    """A look at the outbox is cached for some seconds, in which a file can be missing only because of the unmount."""
    unmount(nas)
    (harness.root / "disk").mkdir()
    mount(nas, harness.root / "disk")
    harness.rule = {"outbox": "nas", "if_exists": if_exists}
    harness.drop_file("a.jpg", seed=1)
    if if_exists == "skip":
        (nas / "c.jpg").write_bytes(make_image("jpeg"))
    daemon = Daemon(harness.load_config(), KEY)
    running = asyncio.create_task(daemon.run())
    await wait_until(lambda: harness.journal.exists() and len(harness.jobs(State.DONE)) == 1)
    harness.drop_file("b.jpg", seed=2)
    await wait_until(lambda: harness.count_creates() == 2)
    unmount(nas, lazily=True)
    harness.drop_file("c.jpg", seed=1 if if_exists == "rename" else 3)
    await wait_until(lambda: any(job.note for job in harness.jobs(State.QUEUED)) or harness.count_creates() > 2)
    daemon.stop()
    await running
    assert harness.count_creates() == 2
    assert harness.job("c.jpg").state is State.QUEUED


async def test_a_mount_change_rescans_only_the_inboxes_it_concerns(harness: Harness, nas: Path) -> None:
    """On a container host something is mounted every few seconds."""
    (harness.root / "to").mkdir()
    (harness.root / "link").symlink_to("to/in")
    harness.rule = {"rescan_interval": "1h", "observer": "polling"}
    harness.more_rules = [{"name": "linked", "inbox": "link", **harness.rule}]
    daemon = Daemon(harness.load_config(), KEY)
    running = asyncio.create_task(daemon.run())
    await wait_until(lambda: harness.daemon_report().count('"watching": false') == 1)
    last_scans = {inbox.rule.name: inbox.last_scan_at for inbox in daemon.services.inboxes.list_active()}
    unmount(nas)
    (nas / "in").mkdir()
    mount(harness.root / "to", nas)
    await wait_until(lambda: "false" not in harness.daemon_report())
    after = {inbox.rule.name: inbox.last_scan_at for inbox in daemon.services.inboxes.list_active()}
    daemon.stop()
    await running
    unmount(harness.root / "to")
    assert after["scans"] == last_scans["scans"]
    assert after["linked"] > last_scans["linked"]


async def test_an_original_unmounted_before_its_move_does_not_count_as_gone(
    harness: Harness, nas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unmount(nas)
    (harness.root / "disk").mkdir()
    mount(nas, harness.root / "disk")
    harness.rule = {"inbox": "nas", "on_success": "move", "archive": "archive"}
    harness.drop_file("a.jpg", seed=1, inbox="disk")

    def too_late(*args: Any, **kwargs: Any) -> Any:
        unmount(nas, lazily=True)
        return move_original(*args, **kwargs)

    with monkeypatch.context() as race:
        race.setattr("picwish_watchd.pipeline.dispose.move_original", too_late)
        await harness.run_once()
    assert harness.job("a.jpg").original is OriginalStatus.WAITING
    assert "is away" in (harness.job("a.jpg").note or "")
    mount(nas, harness.root / "disk")
    assert await harness.run_once() == 0
    assert harness.job("a.jpg").original is OriginalStatus.MOVED
    assert (harness.root / "archive" / "a.jpg").exists()
