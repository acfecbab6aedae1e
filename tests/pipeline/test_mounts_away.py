"""Folders that lie on another mount than before count as away: nothing is taken, bought, written or moved there."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from picwish_watchd.cli.main import main
from picwish_watchd.daemon.daemon import Daemon
from picwish_watchd.job import Original, State
from picwish_watchd.outbox.originals import move
from tests.support.house import KEY, House, Process, until
from tests.support.mounting import mount, mounted, umount
from tests.support.pictures import picture


@pytest.fixture
def nas(house: House) -> Iterator[Path]:
    """A mount point below the house that a tmpfs is mounted on; left unmounted in the end."""
    with mounted(house.root / "nas") as folder:
        yield folder


async def lose_the_outbox(house: House, nas: Path) -> None:
    """`a.jpg` was delivered to the mount; then that went away, and `b.jpg` came and waits."""
    house.rule = {"outbox": "nas"}
    house.drop("a.jpg", seed=1)
    assert await house.drain() == 0
    umount(nas)
    house.drop("b.jpg", seed=2)
    assert await house.drain() == 1


async def test_an_outbox_right_at_a_mount_point_is_not_written_under_it_and_nothing_is_bought(
    house: House, nas: Path
) -> None:
    await lose_the_outbox(house, nas)
    assert list(nas.iterdir()) == []
    assert house.creates() == 1
    mount(nas)
    assert await house.drain() == 0
    assert (nas / "b.jpg").exists()


async def test_approve_accepts_the_mount_that_an_outbox_lies_on_now(house: House, nas: Path) -> None:
    await lose_the_outbox(house, nas)
    assert main(["approve", "scans", "-c", str(house.configure())]) == 0
    assert await house.drain() == 0
    assert (nas / "b.jpg").exists()


async def test_a_queued_job_waits_while_the_mount_of_its_inbox_is_away(house: House, nas: Path) -> None:
    house.rule = {"inbox": "nas"}
    (nas / "a.jpg").write_bytes(picture("jpeg", seed=1))
    assert await house.drain() == 0
    house.top = {"budget": {"per_day": 5}}
    kept = picture("jpeg", seed=2)
    (nas / "b.jpg").write_bytes(kept)
    assert await house.drain() == 1
    assert house.job("b.jpg").state is State.QUEUED
    umount(nas)
    house.top = {}
    assert await house.drain() == 1
    assert house.job("b.jpg").state is State.QUEUED


async def test_a_mount_that_comes_is_walked_at_once_whatever_the_interval(house: House, nas: Path) -> None:
    """The inbox is a folder of the mount; `rescan_interval` is an hour."""
    full = house.root / "elsewhere"
    (full / "in").mkdir(parents=True)
    (full / "in" / "a.jpg").write_bytes(picture("jpeg", seed=1))
    house.rule = {"inbox": "nas/in", "rescan_interval": "1h"}
    process = Process(house).start()
    await until(lambda: house.journal.exists() and '"watching": false' in house.report())
    mount(nas, full)
    await until(lambda: len(house.jobs(State.DONE)) == 1)
    told = [line for line in process.log() if line["event"] == "inbox.observed"]
    assert [line["observer"] for line in told] == ["native"]
    assert '"observer": "native"' in house.report()
    assert await process.stop() == 0


@pytest.mark.parametrize("if_exists", ["rename", "skip"])
async def test_an_outbox_that_has_just_gone_is_not_taken_for_one_without_the_result(
    house: House, nas: Path, if_exists: str
) -> None:
    """A look at the outbox counts for some seconds: what is missing there within them may stand on its mount."""
    umount(nas)
    (house.root / "disk").mkdir()
    mount(nas, house.root / "disk")
    house.rule = {"outbox": "nas", "if_exists": if_exists}
    house.drop("a.jpg", seed=1)
    if if_exists == "skip":
        (nas / "c.jpg").write_bytes(picture("jpeg"))
    daemon = Daemon(house.config(), KEY)
    running = asyncio.create_task(daemon.run())
    await until(lambda: house.journal.exists() and len(house.jobs(State.DONE)) == 1)
    house.drop("b.jpg", seed=2)
    await until(lambda: house.creates() == 2)
    umount(nas, lazily=True)
    house.drop("c.jpg", seed=1 if if_exists == "rename" else 3)
    await until(lambda: any(job.note for job in house.jobs(State.QUEUED)) or house.creates() > 2)
    daemon.stop()
    await running
    assert house.creates() == 2
    assert house.job("c.jpg").state is State.QUEUED


async def test_a_change_of_mounts_walks_those_inboxes_that_it_concerns_and_no_other(house: House, nas: Path) -> None:
    """On a host of containers something is mounted every few seconds."""
    (house.root / "to").mkdir()
    (house.root / "link").symlink_to("to/in")
    house.rule = {"rescan_interval": "1h", "observer": "polling"}
    house.more_rules = [{"name": "linked", "inbox": "link", **house.rule}]
    daemon = Daemon(house.config(), KEY)
    running = asyncio.create_task(daemon.run())
    await until(lambda: house.report().count('"watching": false') == 1)
    heard = {desk.rule.name: desk.heard for desk in daemon.desks.all()}
    umount(nas)
    (nas / "in").mkdir()
    mount(house.root / "to", nas)
    await until(lambda: "false" not in house.report())
    after = {desk.rule.name: desk.heard for desk in daemon.desks.all()}
    daemon.stop()
    await running
    umount(house.root / "to")
    assert after["scans"] == heard["scans"]
    assert after["linked"] > heard["linked"]


async def test_an_original_whose_mount_goes_right_before_it_is_moved_is_not_taken_for_gone(
    house: House, nas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    umount(nas)
    (house.root / "disk").mkdir()
    mount(nas, house.root / "disk")
    house.rule = {"inbox": "nas", "on_success": "move", "archive": "archive"}
    house.drop("a.jpg", seed=1, inbox="disk")

    def too_late(*args: Any, **kwargs: Any) -> Any:
        umount(nas, lazily=True)
        return move(*args, **kwargs)

    with monkeypatch.context() as race:
        race.setattr("picwish_watchd.pipeline.dispose.move", too_late)
        await house.drain()
    assert house.job("a.jpg").original is Original.WAITING
    assert "is away" in (house.job("a.jpg").note or "")
    mount(nas, house.root / "disk")
    assert await house.drain() == 0
    assert house.job("a.jpg").original is Original.MOVED
    assert (house.root / "archive" / "a.jpg").exists()
