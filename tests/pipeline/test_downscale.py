"""``oversize: downscale``: too large an image is made smaller, sent and paid once; the job has both sizes."""

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from picwish_watchd.cli.main import main
from picwish_watchd.images.inspect import ValidImage
from picwish_watchd.job import ErrorCode, Job, SentImage, State
from picwish_watchd.pipeline.admission import build_new_job, validate_file
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pipeline.gate import Gate
from picwish_watchd.runtime.worker_key import WorkerKey
from picwish_watchd.scheduling.rate_limiter import RateLimiter
from tests.support.api_steps import make_api_steps, make_prepare
from tests.support.harness import Harness, wait_until
from tests.support.sample_images import make_image
from tests.support.step_context import open_step_context

SMALL = {"max_side": 200}


@pytest.fixture
async def context(harness: Harness) -> AsyncIterator[StepContext]:
    """Yield the parts of the daemon with downscaling configured and nothing running."""
    harness.rule, harness.api = {"oversize": "downscale"}, SMALL
    async with open_step_context(harness.load_config()) as context:
        yield context


def queue_image(
    harness: Harness,
    context: StepContext,
    name: str,
    *,
    seed: int = 0,
    inbox: str = "inbox",
    size: tuple[int, int] = (300, 240),
) -> Job:
    """Drop an image, which is too large by default, and return its job."""
    path = harness.drop_file(name, make_image("jpeg", *size, seed=seed), inbox=inbox)
    (rule,) = (rule for rule in context.config.rules if rule.inbox.name == inbox)
    verdict = validate_file(path, context.config.api, rule, final=False)
    assert isinstance(verdict, ValidImage)
    new = build_new_job(rule, path, verdict.stamp, verdict)
    job = context.journal.get(context.journal.add_jobs([new])[0])
    assert job is not None
    return job


def spooled_downscales(context: StepContext) -> dict[str, int]:
    """Return name -> inode of the downscaled images in the spool."""
    return {each.name: each.stat().st_ino for each in Path(context.spool.folder).iterdir()}


async def test_a_downscaled_copy_is_kept_for_retries_and_removed_at_the_end(
    harness: Harness, context: StepContext
) -> None:
    prepare, rule, job = make_prepare(context), context.config.rules[0], queue_image(harness, context, "a.jpg")
    first = await prepare.read_upload(job, rule)
    downscales = spooled_downscales(context)
    assert list(downscales) == ["1.fitted.part"]
    prepare.release_cached(job.id)
    second = await prepare.read_upload(job, rule)
    assert first is not None
    assert second == first
    assert spooled_downscales(context) == downscales, "it was not downscaled again"
    context.journal.transition(job, State.SUBMITTING, "sending", reserve=5)
    prepare.release_cached(job.id)
    assert spooled_downscales(context) == {}


async def test_a_downscaled_copy_is_not_sent_once_the_original_has_changed(
    harness: Harness, context: StepContext
) -> None:
    prepare, rule, job = make_prepare(context), context.config.rules[0], queue_image(harness, context, "a.jpg")
    assert await prepare.read_upload(job, rule) is not None
    del harness.dropped[job.source]
    harness.drop_file("a.jpg", make_image("jpeg", 300, 240, seed=1))
    assert await prepare.read_upload(job, rule) is None
    assert harness.job("a.jpg").state is State.REJECTED
    prepare.release_cached(job.id)
    assert spooled_downscales(context) == {}


async def test_few_downscaled_copies_are_spooled_and_damaged_ones_remade(
    harness: Harness, context: StepContext
) -> None:
    prepare, rule = make_prepare(context), context.config.rules[0]
    jobs = [queue_image(harness, context, f"{number}.jpg", seed=number) for number in range(6)]
    uploads = [await prepare.read_upload(job, rule) for job in jobs]
    assert sorted(spooled_downscales(context)) == [f"{job.id}.fitted.part" for job in jobs[2:]]
    os.truncate(context.spool.folder / f"{jobs[5].id}.fitted.part", 9)
    assert await prepare.read_upload(jobs[5], rule) is None, "the job is tried again after a pause"
    assert [await prepare.read_upload(jobs[number], rule) for number in (0, 5)] == [uploads[0], uploads[5]]


async def test_downscaling_one_image_does_not_block_another_rule(harness: Harness, context: StepContext) -> None:
    # Two images are prepared at a time.
    harness.api = {**SMALL, "qps": 10}
    harness.more_rules = [{"name": "other", "inbox": "other"}]
    context.config = harness.load_config()
    large = [queue_image(harness, context, f"{number}.jpg", seed=number) for number in range(3)]
    small = [
        queue_image(harness, context, f"{number}.jpg", seed=number + 9, inbox="other", size=(60, 40))
        for number in range(4)
    ]

    def states(jobs: list[Job]) -> set[State]:
        current = [context.journal.get(job.id) for job in jobs]
        return {job.state for job in current if job is not None}

    rate_limiter = RateLimiter(10, context.clock)
    gate = Gate(context, rate_limiter=rate_limiter)
    submit = make_api_steps(context, gate, rate_limiter, memory_bytes=64 * 2**20).submit
    finished = threading.Event()
    context.executor.submit(WorkerKey.downscale(), finished.wait)
    pacing, submitting = asyncio.create_task(rate_limiter.run()), asyncio.create_task(submit.run())
    try:
        await wait_until(lambda: states(small) == {State.PENDING})
        assert states(large) == {State.QUEUED}
        finished.set()
        await wait_until(lambda: states(large) == {State.PENDING})
    finally:
        finished.set()
        context.stopping = True
        context.wakeups.submit.notify()
        await submitting
        pacing.cancel()


async def test_an_image_that_is_too_large_is_made_smaller_and_its_original_stays(harness: Harness) -> None:
    harness.rule, harness.api = {"oversize": "downscale", "sidecar": True}, SMALL
    source = harness.drop_file("a.png", make_image("png", 300, 240))
    copy = harness.drop_file("deep/b.png", source.read_bytes())
    harness.drop_file("fits.jpg", make_image("jpeg", 200, 100))
    assert await harness.run_once() == 0
    job = harness.job("a.png")
    assert (job.width, job.height) == (300, 240)
    assert job.sha256 == harness.dropped[source]
    assert job.sent is not None
    assert job.sent == SentImage("png", 200, 160, job.sent.size)
    assert job.result is not None
    assert (job.result.width, job.result.height) == (400, 320)
    assert harness.count_creates() == 2, "the copy is the same image"
    assert harness.job("fits.jpg").sent is None
    assert copy.exists()
    sidecar = json.loads((harness.outbox / "a.png.json").read_text())
    assert sidecar["sent"] == {"format": "png", "width": 200, "height": 160, "size": job.sent.size}
    assert list((harness.root / "state/journal.db.spool").iterdir()) == []


async def test_an_image_with_too_many_bytes_is_reencoded_smaller(harness: Harness) -> None:
    harness.rule, harness.api = {"oversize": "downscale"}, {"max_bytes": 20_000}
    harness.drop_file("a.bmp", make_image("bmp", 300, 240))
    assert await harness.run_once() == 0
    job = harness.job("a.bmp")
    assert job.sent is not None
    assert job.sent.size <= 20_000 < job.stamp.size


async def test_retry_accepts_an_oversize_image_once_the_rule_allows_downscaling(harness: Harness) -> None:
    harness.api = SMALL
    harness.drop_file("a.jpg", make_image("jpeg", 300, 240))
    assert await harness.run_once() == 1
    assert harness.job("a.jpg").state is State.REJECTED
    harness.rule = {"oversize": "downscale"}
    assert main(["retry", str(harness.job("a.jpg").id), "-c", str(harness.write_config())]) == 0
    assert await harness.run_once() == 0
    assert harness.job("a.jpg").sent is not None


async def test_a_queued_oversize_image_is_rejected_once_downscaling_is_off(
    harness: Harness,
) -> None:
    harness.rule, harness.api, harness.top_level = {"oversize": "downscale"}, SMALL, {"budget": {"per_day": 4}}
    harness.drop_file("a.jpg", make_image("jpeg", 300, 240))
    assert await harness.run_once() == 1
    assert harness.job("a.jpg").state is State.QUEUED
    harness.rule, harness.top_level = {}, {}
    assert await harness.run_once() == 1
    problem = harness.job("a.jpg").problem
    assert problem is not None
    assert problem.code is ErrorCode.RESOLUTION_TOO_HIGH
    assert harness.count_creates() == 0


async def test_an_original_changed_before_downscaling_is_never_mixed(harness: Harness) -> None:
    harness.rule, harness.api, harness.top_level = {"oversize": "downscale"}, SMALL, {"budget": {"per_day": 4}}
    first = harness.drop_file("a.jpg", make_image("jpeg", 300, 240))
    assert await harness.run_once() == 1
    del harness.dropped[first]
    harness.drop_file("a.jpg", make_image("jpeg", 300, 240, seed=1))
    harness.top_level = {}
    await harness.run_once()
    assert [job.state for job in harness.jobs()] == [State.REJECTED, State.DONE]
    assert harness.count_creates() == 1
