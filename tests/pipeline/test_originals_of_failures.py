"""`on_failure: move`: only the file that failed is moved, and what was wrong with it is never left untold."""

import asyncio
import json

import pytest

from picwish_watchd.job import ErrorCode, Original, State
from picwish_watchd.pipeline import dispose, prepare
from picwish_watchd.simulator import Fault
from picwish_watchd.simulator.faults import EndIn
from tests.support.house import House


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispose, "_PAUSE", 0.1)
    monkeypatch.setattr(dispose, "_IDLE", 0.1)
    monkeypatch.setattr(prepare, "_PAUSE", 0.1)


async def test_a_file_that_came_back_is_not_moved_for_the_job_that_missed_it(house: House) -> None:
    house.rule = {"on_failure": "move", "failed": "nas/failed", "outbox": "away/outbox"}
    source = house.drop("a.jpg")
    assert await house.drain() == 1, "the outbox is away"
    source.rename(house.root / "kept.jpg")
    (house.root / "away").mkdir()
    assert await house.drain() == 1
    missed = house.job("a.jpg")
    assert missed.problem is not None
    assert (missed.problem.code, missed.original) == (ErrorCode.SOURCE_MISSING, Original.GONE)
    (house.root / "kept.jpg").rename(source)
    assert await house.drain() == 0
    (house.root / "nas").mkdir()  # where a failed original is moved to
    assert await house.drain() == 0
    assert source.exists()
    assert [job.state for job in house.jobs()] == [State.REJECTED, State.DONE]
    assert house.creates() == 1


async def test_a_run_that_only_moves_the_original_of_an_earlier_failure_ends_well(house: House) -> None:
    house.rule = {"on_failure": "move", "failed": "nas/failed"}
    source = house.drop("a.jpg", b"<html>")
    assert await house.drain() == 1
    (house.root / "nas").mkdir()
    assert await house.drain() == 0
    assert not source.exists()
    assert house.job("a.jpg").original is Original.MOVED


async def test_a_file_that_has_a_newer_job_is_not_moved_for_an_older_one(house: House) -> None:
    house.rule = {"on_failure": "move", "failed": "nas/failed"}
    house.simulator.script.add(Fault("create", EndIn(-5)))
    source = house.drop("a.jpg", seed=1)
    assert await house.drain() == 1
    assert house.job("a.jpg").original is Original.WAITING
    first = source.read_bytes()
    house.drop("a.jpg", seed=2)
    await house.drain()
    house.drop("a.jpg", first)
    await house.drain()
    (house.root / "nas").mkdir()
    await house.drain()
    assert source.read_bytes() == first
    assert [job.state for job in house.jobs()] == [State.FAILED, State.DONE, State.DONE]
    assert house.jobs()[0].original is Original.REPLACED


async def test_a_sidecar_that_could_not_be_written_is_told_of_and_written_later(house: House) -> None:
    house.rule = {"on_failure": "move", "failed": "failed"}
    (house.root / "failed" / "a.jpg.error.json").mkdir(parents=True)
    source = house.drop("a.jpg", b"no image at all")
    assert await house.drain() == 1
    job = house.job("a.jpg")
    assert (job.state, job.original) == (State.REJECTED, Original.WAITING)
    moved = house.root / "failed" / "a.jpg"
    assert job.note == (
        f"the original was moved to {moved}, and what was wrong with it could not be written beside it yet: "
        "something else bears its name; tried again every minute"
    )
    assert moved.exists()
    assert not source.exists()
    (house.root / "failed" / "a.jpg.error.json").rmdir()
    await asyncio.sleep(0.15)
    await house.drain()
    assert json.loads((house.root / "failed" / "a.jpg.error.json").read_text())["error"]["code"] == "not_an_image"
    assert house.job("a.jpg").original is Original.MOVED
    assert house.job("a.jpg").note is None


async def test_a_sidecar_is_written_later_though_another_file_lies_in_the_inbox_by_then(house: House) -> None:
    house.rule = {"on_failure": "move", "failed": "failed"}
    (house.root / "failed" / "a.jpg.error.json").mkdir(parents=True)
    house.drop("a.jpg", b"no image at all")
    assert await house.drain() == 1
    (house.root / "failed" / "a.jpg.error.json").rmdir()
    source = house.drop("a.jpg", seed=2)
    await asyncio.sleep(0.15)
    await house.drain()
    assert (house.root / "failed" / "a.jpg.error.json").is_file()
    assert source.exists()
    assert [job.original for job in house.jobs()] == [Original.MOVED, Original.PRESENT]
