"""Delivery and originals: whatever is in the way, no paid result is lost and no file is overwritten."""

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from picwish_watchd.job import ErrorCode, OriginalStatus, State
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.pipeline import deliver, dispose, result_names
from picwish_watchd.pipeline.deliver import Deliver
from tests.support.harness import DaemonProcess, Harness, wait_until
from tests.support.sample_images import make_image
from tests.support.step_context import open_step_context


@contextmanager
def make_immutable(path: Path) -> Iterator[None]:
    """Set the immutable attribute (chattr +i): not even root can create or remove a file in the folder."""
    if shutil.which("chattr") is None or subprocess.run(["chattr", "+i", path], check=False).returncode != 0:
        pytest.skip("chattr +i is not possible with this file system or user")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", path], check=True)


@pytest.fixture(autouse=True)
def _short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliver, "_RETRY_DELAY", 0.1)
    monkeypatch.setattr(dispose, "_RETRY_DELAY", 0.1)
    monkeypatch.setattr(dispose, "_IDLE_SECONDS", 0.1)


async def lose_nas_after_submit(harness: Harness, name: str = "a.jpg") -> int:
    """Run once, unmount the folder nas as soon as PicWish has the image, and return the exit code."""
    harness.simulator.settings = replace(harness.simulator.settings, processing=(0.6, 0.1))
    (harness.root / "nas").mkdir()
    harness.rule = {"outbox": "nas/outbox", **harness.rule}
    harness.drop_file(name)
    run = asyncio.create_task(harness.run_once())
    await wait_until(lambda: harness.journal.exists() and bool(harness.jobs(State.PENDING)))
    (harness.root / "nas").rename(harness.root / "unmounted")
    return await run


def restore_nas(harness: Harness) -> None:
    (harness.root / "unmounted").rename(harness.root / "nas")


async def test_nothing_is_paid_for_while_the_outbox_cannot_be_used(harness: Harness) -> None:
    harness.rule = {"outbox": "nas/outbox"}
    harness.drop_file("a.jpg")
    assert await harness.run_once() == 1
    assert harness.job("a.jpg").state is State.QUEUED
    assert "nas/outbox" in (harness.job("a.jpg").note or "")
    assert harness.count_creates() == 0
    (harness.root / "nas").mkdir()
    assert await harness.run_once() == 0
    assert (harness.root / "nas/outbox/a.jpg").exists()


async def test_an_outbox_that_goes_away_after_the_purchase_only_delays_the_delivery(harness: Harness) -> None:
    assert await lose_nas_after_submit(harness) == 1
    job = harness.job("a.jpg")
    assert (job.state, job.credits) == (State.DELIVERING, 5)
    assert "nas/outbox" in (job.note or "")
    restore_nas(harness)
    assert await harness.run_once() == 0
    assert (harness.root / "nas/outbox/a.jpg").exists()
    assert harness.count_creates() == 1


async def test_a_folder_that_was_there_before_is_never_made_again(harness: Harness) -> None:
    harness.rule = {"on_success": "delete"}
    (harness.root / "nas").mkdir()
    harness.rule["outbox"] = "nas/outbox"
    harness.drop_file("a.jpg")
    assert await harness.run_once() == 0
    (harness.root / "nas").rename(harness.root / "unmounted")
    # This is the empty mount point.
    (harness.root / "nas").mkdir()
    source = harness.drop_file("b.jpg", seed=2)
    assert await harness.run_once() == 1
    assert list((harness.root / "nas").iterdir()) == []
    assert source.exists()
    assert harness.count_creates() == 1


async def test_a_name_that_is_taken_by_a_folder_is_numbered(harness: Harness) -> None:
    (harness.outbox / "a.jpg").mkdir(parents=True)
    harness.drop_file("a.jpg")
    assert await harness.run_once() == 0
    assert harness.job("a.jpg").output == harness.outbox / "a-1.jpg"


@pytest.mark.parametrize("obstacle", ["a file", "a link"])
async def test_nothing_is_paid_for_while_a_file_blocks_a_subfolder(obstacle: str, harness: Harness) -> None:
    harness.outbox.mkdir()
    create_obstacle(harness.outbox / "sub", obstacle)
    harness.drop_file("sub/a.jpg", seed=1)
    harness.drop_file("b.jpg", seed=2)
    assert await harness.run_once() == 1
    job = harness.job("sub/a.jpg")
    assert job.state is State.QUEUED
    assert job.note == (
        f"{harness.outbox}/sub is where a folder for results must be; rename or remove it, then the job continues"
    )
    assert harness.count_creates() == 1, "the other rule continues"
    harness.outbox.joinpath("sub").unlink()
    assert await harness.run_once() == 0
    assert harness.results() == {"b.jpg", "sub/a.jpg"}


@pytest.mark.parametrize("obstacle", ["a file", "a link"])
async def test_an_obstacle_at_a_subfolder_after_payment_holds_job_and_result(obstacle: str, harness: Harness) -> None:
    await submit_then_obstruct(harness, obstacle)
    job = harness.job("sub/a.jpg")
    assert job.problem is not None
    assert (job.state, job.problem.code) == (State.HELD, ErrorCode.OUTPUT_FAILED)
    assert not Path("/tmp/a.jpg").exists()


def create_obstacle(path: Path, obstacle: str) -> None:
    if obstacle == "a link":
        path.symlink_to("/tmp")
    else:
        path.write_bytes(make_image("png"))


async def submit_then_obstruct(harness: Harness, obstacle: str) -> None:
    """Put a file in the place of the result's subfolder while PicWish processes the image."""
    harness.simulator.settings = replace(harness.simulator.settings, processing=(0.6, 0.1))
    harness.outbox.mkdir()
    harness.drop_file("sub/a.jpg")
    run = asyncio.create_task(harness.run_once())
    await wait_until(lambda: harness.journal.exists() and bool(harness.jobs(State.PENDING)))
    create_obstacle(harness.outbox / "sub", obstacle)
    assert await run == 1


async def test_thousands_of_same_named_results_cost_one_lookup_each(harness: Harness) -> None:
    """A scanner calls every file Scan.jpg; trying the names one by one took ten seconds here."""
    harness.outbox.mkdir()
    body = make_image("jpeg")
    (harness.root / "body").write_bytes(body)
    for number in range(5_000):
        os.link(harness.root / "body", harness.outbox / (f"a-{number}.jpg" if number else "a.jpg"))
    harness.drop_file("a.jpg", seed=1)
    began = time.monotonic()
    assert await harness.run_once() == 0
    assert time.monotonic() - began < 6
    assert harness.job("a.jpg").output == harness.outbox / "a-5000.jpg"
    # At the end each remaining file would be hashed.
    shutil.rmtree(harness.outbox)


async def test_own_part_files_are_swept_and_foreign_files_are_kept(harness: Harness) -> None:
    harness.outbox.mkdir()
    (harness.outbox / ".picwish-7-0123abcd.part").write_bytes(b"half")
    (harness.outbox / ".someone.part").write_bytes(b"theirs")
    harness.drop_file("a.jpg")
    assert await harness.run_once() == 0
    assert {path.name for path in harness.outbox.iterdir()} == {"a.jpg", ".someone.part"}


async def test_a_result_that_is_lost_from_the_spool_is_fetched_again_for_nothing(harness: Harness) -> None:
    assert await lose_nas_after_submit(harness) == 1
    for path in (harness.root / "state/journal.db.spool").iterdir():
        path.unlink()
    restore_nas(harness)
    assert await harness.run_once() == 0
    assert (harness.root / "nas/outbox/a.jpg").exists()
    assert harness.count_creates() == 1


async def test_a_refetched_result_is_delivered_before_it_backs_off_again(harness: Harness) -> None:
    """An earlier run's failures to write into the outbox are no reason for a pause in this run."""
    assert await lose_nas_after_submit(harness) == 1
    for path in (harness.root / "state/journal.db.spool").iterdir():
        path.unlink()
    assert await harness.run_once() == 1
    reader = JournalReader.open(harness.journal)
    waits = [event.message for event in reader.history(harness.job("a.jpg").id) if "cannot be used" in event.message]
    reader.close()
    assert len(waits) == 2
    restore_nas(harness)


async def test_a_damaged_spool_is_never_delivered(harness: Harness) -> None:
    assert await lose_nas_after_submit(harness) == 1
    for path in (harness.root / "state/journal.db.spool").iterdir():
        path.write_bytes(path.read_bytes()[:-10])
    restore_nas(harness)
    assert await harness.run_once() == 0
    job = harness.job("a.jpg")
    assert job.result is not None
    assert (harness.root / "nas/outbox/a.jpg").stat().st_size == job.result.size
    assert harness.count_creates() == 1


async def test_what_is_damaged_leaves_the_spool_at_once(harness: Harness) -> None:
    """After a crash during the second download the damaged file would pass for the new one."""
    assert await lose_nas_after_submit(harness) == 1
    restore_nas(harness)
    async with open_step_context(harness.load_config()) as context:
        [job] = context.journal.jobs(states=[State.DELIVERING])
        result = context.spool.result_path(job.id)
        result.write_bytes(result.read_bytes() + b"behind its end")
        await Deliver(context).deliver(job)
    assert harness.job("a.jpg").state is State.PENDING
    assert not result.exists()
    assert await harness.run_once() == 0
    assert harness.count_creates() == 1


async def test_an_unmovable_original_leaves_the_job_done_and_is_moved_later(harness: Harness) -> None:
    harness.rule = {"on_success": "move", "archive": "archive"}
    source = harness.drop_file("box/a.jpg")
    with make_immutable(source.parent):
        await harness.run_once()
        job = harness.job("box/a.jpg")
        assert (job.state, job.original) == (State.DONE, OriginalStatus.WAITING)
        assert job.note == (
            f"the original could not be moved to {harness.root}/archive yet: Operation not permitted; "
            "it is where it was, and is tried again every minute"
        )
        assert source.exists()
    await asyncio.sleep(0.15)
    assert await harness.run_once() == 0
    assert not source.exists()
    assert (harness.root / "archive/box/a.jpg").exists()
    assert harness.count_creates() == 1


async def test_an_original_that_cannot_be_deleted_is_reported_and_deleted_later(harness: Harness) -> None:
    harness.rule = {"on_success": "delete"}
    source = harness.drop_file("box/a.jpg")
    with make_immutable(source.parent):
        await harness.run_once()
        assert harness.job("box/a.jpg").note == (
            "the original could not be deleted yet: Operation not permitted; "
            "it is where it was, and is tried again every minute"
        )
        assert source.exists()
    await asyncio.sleep(0.15)
    assert await harness.run_once() == 0
    assert not source.exists()
    assert harness.count_creates() == 1


async def test_an_original_that_was_replaced_meanwhile_is_not_touched_and_is_new(harness: Harness) -> None:
    harness.rule = {"on_success": "move", "archive": "nas/archive"}
    source = harness.drop_file("a.jpg", seed=1)
    await harness.run_once()
    assert harness.job("a.jpg").original is OriginalStatus.WAITING
    new = harness.drop_file("a.jpg", seed=2)
    (harness.root / "nas").mkdir()
    await asyncio.sleep(0.15)
    assert await harness.run_once() == 0
    assert [job.original for job in harness.jobs()] == [OriginalStatus.REPLACED, OriginalStatus.MOVED]
    assert new == source
    assert harness.count_creates() == 2


async def test_an_archived_original_dropped_again_reuses_its_first_result(harness: Harness) -> None:
    harness.rule = {"on_success": "move", "archive": "archive"}
    source = harness.drop_file("a.jpg")
    task = asyncio.create_task(harness.run_once())
    await task
    os.rename(harness.root / "archive/a.jpg", source)
    assert await harness.run_once() == 0
    assert [job.credits for job in harness.jobs()] == [5, 0]
    assert harness.results() == {"a.jpg", "a-1.jpg"}
    assert harness.count_creates() == 1


async def test_a_task_of_a_removed_rule_is_delivered_to_its_original_outbox(harness: Harness) -> None:
    assert await lose_nas_after_submit(harness) == 1
    restore_nas(harness)
    (harness.root / "other").mkdir()
    harness.rule = {"name": "another", "inbox": "other"}
    assert await harness.run_once() == 0
    assert (harness.root / "nas/outbox/a.jpg").exists()


async def test_a_bug_in_one_job_parks_that_job_only(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    real = result_names.result_name

    def stumble(job: object, *args: object) -> object:
        if str(getattr(job, "relative", "")) == "bad.jpg":
            raise ZeroDivisionError("a bug")
        return real(job, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(deliver, "result_name", stumble)
    harness.drop_file("bad.jpg", seed=1)
    harness.drop_file("good.jpg", seed=2)
    assert await harness.run_once() == 1
    assert harness.job("good.jpg").state is State.DONE
    job = harness.job("bad.jpg")
    assert job.problem is not None
    assert (job.state, job.problem.code) == (State.HELD, ErrorCode.INTERNAL_ERROR)
    assert "ZeroDivisionError" in job.problem.message


async def test_an_outbox_unwritable_after_payment_is_retried_until_it_works(harness: Harness) -> None:
    harness.simulator.settings = replace(harness.simulator.settings, processing=(0.6, 0.1))
    harness.outbox.mkdir()
    harness.drop_file("a.jpg")
    run = asyncio.create_task(harness.run_once())
    await wait_until(lambda: harness.journal.exists() and bool(harness.jobs(State.PENDING)))
    with make_immutable(harness.outbox):
        assert await run == 1
        assert harness.job("a.jpg").state is State.DELIVERING
    assert await harness.run_once() == 0
    assert harness.results() == {"a.jpg"}
    assert harness.count_creates() == 1


async def test_the_older_contents_result_never_replaces_the_newer_ones(harness: Harness) -> None:
    harness.rule = {"if_exists": "overwrite"}
    times = iter((1.5, 0.05))
    harness.simulator.settings = replace(harness.simulator.settings, processing=lambda: next(times, 0.05))
    process = DaemonProcess(harness).start()
    harness.drop_file("a.jpg", seed=1)
    await wait_until(lambda: harness.journal.exists() and bool(harness.jobs(State.PENDING)))
    old = harness.dropped[harness.inbox / "a.jpg"]
    harness.drop_file("a.jpg", seed=2)
    await wait_until(lambda: len(harness.jobs(State.DONE)) == 2)
    assert await process.stop() == 0
    first, second = harness.jobs()
    assert first.sha256 == old
    assert second.result is not None
    assert (harness.outbox / "a.jpg").stat().st_size == second.result.size
    assert first.output == harness.outbox / "a-1.jpg"


async def test_an_unavailable_inbox_during_disposal_pays_nothing_twice(harness: Harness) -> None:
    harness.rule = {"on_success": "move", "archive": "nas2/archive"}
    source = harness.drop_file("a.jpg")
    await harness.run_once()
    assert harness.job("a.jpg").original is OriginalStatus.WAITING
    harness.inbox.rename(harness.root / "away")
    (harness.root / "nas2").mkdir()
    assert await harness.run_once() == 1
    (harness.root / "away").rename(harness.inbox)
    assert await harness.run_once() == 0
    assert not source.exists()
    assert (harness.root / "nas2/archive/a.jpg").exists()
    assert harness.count_creates() == 1


async def test_an_undeliverable_paid_result_stays_in_the_spool_for_retry(harness: Harness) -> None:
    await submit_then_obstruct(harness, "a file")
    assert await harness.run_once() == 0
    assert [path.suffix for path in (harness.root / "state/journal.db.spool").iterdir()] == [".result"]


async def test_a_rule_changed_to_keep_keeps_an_original_due_for_removal(harness: Harness) -> None:
    harness.rule = {"on_success": "move", "archive": "nas2/archive"}
    source = harness.drop_file("a.jpg")
    await harness.run_once()
    harness.rule = {}
    assert await harness.run_once() == 0
    assert source.exists()
    assert harness.job("a.jpg").original is OriginalStatus.PRESENT
