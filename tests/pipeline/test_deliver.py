"""The outbox and the originals: whatever is in the way, nothing paid is lost and nothing is overwritten."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from picwish_watchd.job import ErrorCode, Original, State
from picwish_watchd.pipeline import deliver, dispose
from tests.support.house import House, until


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    """chattr +i: nothing can be made in or removed from a folder, not even by root."""
    if shutil.which("chattr") is None or subprocess.run(["chattr", "+i", path], check=False).returncode != 0:
        pytest.skip("this file system, or this user, knows no chattr +i")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", path], check=True)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliver, "_PAUSE", 0.1)
    monkeypatch.setattr(dispose, "_PAUSE", 0.1)
    monkeypatch.setattr(dispose, "_IDLE", 0.1)


async def test_an_outbox_that_is_away_only_delays_the_delivery(house: House) -> None:
    house.rule = {"outbox": "nas/outbox"}
    house.drop("a.jpg")
    assert await house.drain() == 1
    job = house.job("a.jpg")
    assert (job.state, job.credits) == (State.DELIVERING, 5)
    assert "nas/outbox" in (job.note or "")
    (house.root / "nas").mkdir()
    assert await house.drain() == 0
    assert (house.root / "nas/outbox/a.jpg").exists()
    assert house.creates() == 1


async def test_an_outbox_that_cannot_be_written_is_tried_until_it_can(house: House) -> None:
    house.outbox.mkdir()
    house.drop("a.jpg")
    with immutable(house.outbox):
        assert await house.drain() == 1
        assert house.job("a.jpg").state is State.DELIVERING
    assert await house.drain() == 0
    assert house.results() == {"a.jpg"}
    assert house.creates() == 1


async def test_a_name_that_is_taken_by_a_folder_is_numbered(house: House) -> None:
    (house.outbox / "a.jpg").mkdir(parents=True)
    house.drop("a.jpg")
    assert await house.drain() == 0
    assert house.job("a.jpg").output == house.outbox / "a-1.jpg"


async def test_a_file_in_the_place_of_a_subfolder_holds_the_job_with_its_result(house: House) -> None:
    house.outbox.mkdir()
    house.outbox.joinpath("sub").symlink_to("/tmp")
    house.drop("sub/a.jpg")
    assert await house.drain() == 1
    job = house.job("sub/a.jpg")
    assert job.problem is not None
    assert (job.state, job.problem.code) == (State.HELD, ErrorCode.OUTPUT_FAILED)
    assert not Path("/tmp/a.jpg").exists()


async def test_leftover_parts_are_swept_and_strangers_files_are_not(house: House) -> None:
    house.outbox.mkdir()
    (house.outbox / ".picwish-7-0123abcd.part").write_bytes(b"half")
    (house.outbox / ".someone.part").write_bytes(b"theirs")
    house.drop("a.jpg")
    assert await house.drain() == 0
    assert {path.name for path in house.outbox.iterdir()} == {"a.jpg", ".someone.part"}


async def test_a_result_that_is_lost_from_the_spool_is_fetched_again_for_nothing(house: House) -> None:
    house.rule = {"outbox": "nas/outbox"}
    house.drop("a.jpg")
    assert await house.drain() == 1
    for path in (house.root / "state/journal.db.spool").iterdir():
        path.unlink()
    (house.root / "nas").mkdir()
    assert await house.drain() == 0
    assert (house.root / "nas/outbox/a.jpg").exists()
    assert house.creates() == 1


async def test_a_damaged_spool_is_never_delivered(house: House) -> None:
    house.rule = {"outbox": "nas/outbox"}
    house.drop("a.jpg")
    assert await house.drain() == 1
    for path in (house.root / "state/journal.db.spool").iterdir():
        path.write_bytes(path.read_bytes()[:-10])
    (house.root / "nas").mkdir()
    assert await house.drain() == 0
    job = house.job("a.jpg")
    assert job.result is not None
    assert (house.root / "nas/outbox/a.jpg").stat().st_size == job.result.size
    assert house.creates() == 1


async def test_an_original_that_cannot_be_moved_leaves_the_job_done_and_is_moved_later(house: House) -> None:
    house.rule = {"on_success": "move", "archive": "archive"}
    source = house.drop("box/a.jpg")
    with immutable(source.parent):
        await house.drain()
        job = house.job("box/a.jpg")
        assert (job.state, job.original) == (State.DONE, Original.WAITING)
        assert "could not be moved" in (job.note or "")
        assert source.exists()
    await asyncio.sleep(0.15)
    assert await house.drain() == 0
    assert not source.exists()
    assert (house.root / "archive/box/a.jpg").exists()
    assert house.creates() == 1


async def test_an_original_that_was_replaced_meanwhile_is_not_touched_and_is_new(house: House) -> None:
    house.rule = {"on_success": "move", "archive": "nas/archive"}
    source = house.drop("a.jpg", seed=1)
    await house.drain()
    assert house.job("a.jpg").original is Original.WAITING
    new = house.drop("a.jpg", seed=2)
    (house.root / "nas").mkdir()
    await asyncio.sleep(0.15)
    assert await house.drain() == 0
    assert [job.original for job in house.jobs()] == [Original.REPLACED, Original.MOVED]
    assert new == source
    assert house.creates() == 2


async def test_an_archived_original_that_is_dropped_again_is_a_new_job(house: House) -> None:
    house.rule = {"on_success": "move", "archive": "archive"}
    source = house.drop("a.jpg")
    task = asyncio.create_task(house.drain())
    await task
    os.rename(house.root / "archive/a.jpg", source)
    house.forgiven.add(house.dropped[source])
    assert await house.drain() == 0
    assert len(house.jobs()) == 2


async def test_a_task_whose_rule_left_is_delivered_to_the_outbox_that_it_was_submitted_for(house: House) -> None:
    house.rule = {"outbox": "nas/outbox"}
    house.drop("a.jpg")
    assert await house.drain() == 1
    (house.root / "nas").mkdir()
    (house.root / "other").mkdir()
    house.rule = {"name": "another", "inbox": "other"}
    assert await house.drain() == 0
    assert (house.root / "nas/outbox/a.jpg").exists()


async def test_a_bug_in_one_job_parks_that_job_only(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    real = deliver.name_of

    def stumble(job: object, *args: object) -> object:
        if str(getattr(job, "relative", "")) == "bad.jpg":
            raise ZeroDivisionError("a bug")
        return real(job, *args)  # type: ignore[arg-type] # handed through

    monkeypatch.setattr(deliver, "name_of", stumble)
    house.drop("bad.jpg", seed=1)
    house.drop("good.jpg", seed=2)
    assert await house.drain() == 1
    assert house.job("good.jpg").state is State.DONE
    job = house.job("bad.jpg")
    assert job.problem is not None
    assert (job.state, job.problem.code) == (State.HELD, ErrorCode.INTERNAL_ERROR)
    assert "ZeroDivisionError" in job.problem.message


async def test_a_running_daemon_delivers_when_the_outbox_comes_back(house: House) -> None:
    house.rule = {"outbox": "nas/outbox"}
    house.drop("a.jpg")
    daemon = asyncio.create_task(house.drain())
    await until(lambda: house.journal.exists() and bool(house.jobs(State.DELIVERING)))
    (house.root / "nas").mkdir()
    await daemon
    assert await house.drain() == 0
    assert house.creates() == 1
