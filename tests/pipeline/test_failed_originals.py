"""`on_failure: move` moves only the file that failed, and a failed move is always reported."""

import asyncio
import json

import pytest

from picwish_watchd.job import ErrorCode, OriginalStatus, State
from picwish_watchd.pipeline import dispose, prepare
from picwish_watchd.simulator import Fault
from picwish_watchd.simulator.faults import EndIn
from tests.support.harness import Harness


@pytest.fixture(autouse=True)
def _short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispose, "_RETRY_DELAY", 0.1)
    monkeypatch.setattr(dispose, "_IDLE_SECONDS", 0.1)
    monkeypatch.setattr(prepare, "_RETRY_DELAY", 0.1)


async def test_a_file_that_came_back_is_not_moved_for_its_earlier_job(harness: Harness) -> None:
    harness.rule = {"on_failure": "move", "failed": "nas/failed", "outbox": "away/outbox"}
    source = harness.drop_file("a.jpg")
    assert await harness.run_once() == 1, "the outbox is unavailable"
    source.rename(harness.root / "kept.jpg")
    (harness.root / "away").mkdir()
    assert await harness.run_once() == 1
    missed = harness.job("a.jpg")
    assert missed.problem is not None
    assert (missed.problem.code, missed.original) == (ErrorCode.SOURCE_MISSING, OriginalStatus.GONE)
    (harness.root / "kept.jpg").rename(source)
    assert await harness.run_once() == 0
    # The folder for failed originals.
    (harness.root / "nas").mkdir()
    assert await harness.run_once() == 0
    assert source.exists()
    assert [job.state for job in harness.jobs()] == [State.REJECTED, State.DONE]
    assert harness.count_creates() == 1


async def test_a_run_that_only_moves_an_earlier_failures_original_exits_0(harness: Harness) -> None:
    harness.rule = {"on_failure": "move", "failed": "nas/failed"}
    source = harness.drop_file("a.jpg", b"<html>")
    assert await harness.run_once() == 1
    (harness.root / "nas").mkdir()
    assert await harness.run_once() == 0
    assert not source.exists()
    assert harness.job("a.jpg").original is OriginalStatus.MOVED


async def test_a_file_that_has_a_newer_job_is_not_moved_for_an_older_one(harness: Harness) -> None:
    harness.rule = {"on_failure": "move", "failed": "nas/failed"}
    harness.simulator.script.add(Fault("create", EndIn(-5)))
    source = harness.drop_file("a.jpg", seed=1)
    assert await harness.run_once() == 1
    assert harness.job("a.jpg").original is OriginalStatus.WAITING
    first = source.read_bytes()
    harness.drop_file("a.jpg", seed=2)
    await harness.run_once()
    harness.drop_file("a.jpg", first)
    await harness.run_once()
    (harness.root / "nas").mkdir()
    await harness.run_once()
    assert source.read_bytes() == first
    assert [job.state for job in harness.jobs()] == [State.FAILED, State.DONE, State.DONE]
    assert harness.jobs()[0].original is OriginalStatus.REPLACED


async def test_an_unwritable_sidecar_is_reported_and_written_later(harness: Harness) -> None:
    harness.rule = {"on_failure": "move", "failed": "failed"}
    (harness.root / "failed" / "a.jpg.error.json").mkdir(parents=True)
    source = harness.drop_file("a.jpg", b"no image at all")
    assert await harness.run_once() == 1
    job = harness.job("a.jpg")
    assert (job.state, job.original) == (State.REJECTED, OriginalStatus.WAITING)
    moved = harness.root / "failed" / "a.jpg"
    assert job.note == (
        f"the original was moved to {moved}, but its error could not be written beside it yet: "
        "another file has its name; tried again every minute"
    )
    assert moved.exists()
    assert not source.exists()
    (harness.root / "failed" / "a.jpg.error.json").rmdir()
    await asyncio.sleep(0.15)
    await harness.run_once()
    assert json.loads((harness.root / "failed" / "a.jpg.error.json").read_text())["error"]["code"] == "not_an_image"
    assert harness.job("a.jpg").original is OriginalStatus.MOVED
    assert harness.job("a.jpg").note is None


async def test_a_late_sidecar_is_written_though_the_inbox_file_was_replaced(harness: Harness) -> None:
    harness.rule = {"on_failure": "move", "failed": "failed"}
    (harness.root / "failed" / "a.jpg.error.json").mkdir(parents=True)
    harness.drop_file("a.jpg", b"no image at all")
    assert await harness.run_once() == 1
    (harness.root / "failed" / "a.jpg.error.json").rmdir()
    source = harness.drop_file("a.jpg", seed=2)
    await asyncio.sleep(0.15)
    await harness.run_once()
    assert (harness.root / "failed" / "a.jpg.error.json").is_file()
    assert source.exists()
    assert [job.original for job in harness.jobs()] == [OriginalStatus.MOVED, OriginalStatus.PRESENT]
