"""``oversize: downscale``: what is too large is made smaller, sent and paid for once, and the job tells both sizes."""

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from picwish_watchd.cli.main import main
from picwish_watchd.clock import Clock
from picwish_watchd.images.inspect import Inspected
from picwish_watchd.job import ErrorCode, Job, Sent, State
from picwish_watchd.journal.writer import Journal
from picwish_watchd.outbox.spool import Spool, spool_folder
from picwish_watchd.picwish import PicwishClient
from picwish_watchd.pipeline.admission import judge, new_job
from picwish_watchd.pipeline.collect import Collect
from picwish_watchd.pipeline.context import Context
from picwish_watchd.pipeline.gate import Gate
from picwish_watchd.pipeline.prepare import Prepare
from picwish_watchd.pipeline.submit import Submit
from picwish_watchd.runtime.memory_budget import ByteBudget
from picwish_watchd.scheduling.rate_limiter import Pacer
from tests.support.house import KEY, House, until
from tests.support.pictures import picture

SMALL = {"max_side": 200}


@pytest.fixture
async def context(house: House) -> AsyncIterator[Context]:
    """The parts as the daemon puts them together, with nothing running."""
    house.rule, house.api = {"oversize": "downscale"}, SMALL
    config = house.config()
    journal = Journal.open_for_writing(config.journal, Clock())
    spool = Spool(spool_folder(config.journal))
    spool.prepare()
    async with PicwishClient(base_url=config.api.base_url, key=KEY, timeout=5) as client:
        context = Context(config=config, journal=journal, spool=spool, clock=Clock(), client=client)
        yield context
        context.close()
    journal.close()


def queue(
    house: House,
    context: Context,
    name: str,
    *,
    seed: int = 0,
    inbox: str = "inbox",
    size: tuple[int, int] = (300, 240),
) -> Job:
    """A picture, too large unless told otherwise, and its job."""
    path = house.drop(name, picture("jpeg", *size, seed=seed), inbox=inbox)
    (rule,) = (rule for rule in context.config.rules if rule.inbox.name == inbox)
    verdict = judge(path, context.config.api, rule, final=False)
    assert isinstance(verdict, Inspected)
    new = new_job(rule, path, verdict.stamp, verdict)
    job = context.journal.get(context.journal.add([new])[0])
    assert job is not None
    return job


def fitted(context: Context) -> dict[str, int]:
    """What lies ready in the spool: name -> inode."""
    return {each.name: each.stat().st_ino for each in Path(context.spool.folder).iterdir()}


async def test_what_was_made_smaller_is_kept_for_the_next_try_and_goes_with_the_last(
    house: House, context: Context
) -> None:
    prepare, rule, job = Prepare(context), context.config.rules[0], queue(house, context, "a.jpg")
    first = await prepare.read(job, rule)
    made = fitted(context)
    assert list(made) == ["1.fitted.part"]
    prepare.release(job.id)
    second = await prepare.read(job, rule)
    assert first is not None
    assert second == first
    assert fitted(context) == made, "it was not made again"
    context.journal.move(job, State.SUBMITTING, "sending", reserve=5)
    prepare.release(job.id)
    assert fitted(context) == {}


async def test_what_was_made_smaller_is_not_sent_once_the_original_has_changed(house: House, context: Context) -> None:
    prepare, rule, job = Prepare(context), context.config.rules[0], queue(house, context, "a.jpg")
    assert await prepare.read(job, rule) is not None
    del house.dropped[job.source]
    house.drop("a.jpg", picture("jpeg", 300, 240, seed=1))
    assert await prepare.read(job, rule) is None
    assert house.job("a.jpg").state is State.REJECTED
    prepare.release(job.id)
    assert fitted(context) == {}


async def test_only_a_few_wait_in_the_spool_and_a_damaged_one_is_made_again(house: House, context: Context) -> None:
    prepare, rule = Prepare(context), context.config.rules[0]
    jobs = [queue(house, context, f"{number}.jpg", seed=number) for number in range(6)]
    uploads = [await prepare.read(job, rule) for job in jobs]
    assert sorted(fitted(context)) == [f"{job.id}.fitted.part" for job in jobs[2:]]
    os.truncate(context.spool.folder / f"{jobs[5].id}.fitted.part", 9)
    assert await prepare.read(jobs[5], rule) is None, "it is tried again after a pause"
    assert [await prepare.read(jobs[number], rule) for number in (0, 5)] == [uploads[0], uploads[5]]


async def test_while_one_is_made_smaller_the_images_of_another_rule_go_on(house: House, context: Context) -> None:
    house.api = {**SMALL, "qps": 10}  # two are prepared at a time
    house.more_rules = [{"name": "other", "inbox": "other"}]
    context.config = house.config()
    large = [queue(house, context, f"{number}.jpg", seed=number) for number in range(3)]
    small = [
        queue(house, context, f"{number}.jpg", seed=number + 9, inbox="other", size=(60, 40)) for number in range(4)
    ]

    def states(jobs: list[Job]) -> set[State]:
        found = [context.journal.get(job.id) for job in jobs]
        return {job.state for job in found if job is not None}

    pacer = Pacer(10, context.clock)
    gate = Gate(context, pacer=pacer)
    collect = Collect(context, gate=gate, pacer=pacer)
    submit = Submit(context, gate=gate, pacer=pacer, budget=ByteBudget(64 * 2**20), collect=collect)
    done = threading.Event()
    context.lanes.begin("fit", done.wait)
    pacing, submitting = asyncio.create_task(pacer.run()), asyncio.create_task(submit.run())
    try:
        await until(lambda: states(small) == {State.PENDING})
        assert states(large) == {State.QUEUED}
        done.set()
        await until(lambda: states(large) == {State.PENDING})
    finally:
        done.set()
        context.stopping = True
        context.bells.submit.ring()
        await submitting
        pacing.cancel()


async def test_an_image_that_is_too_large_is_made_smaller_and_its_original_stays(house: House) -> None:
    house.rule, house.api = {"oversize": "downscale", "sidecar": True}, SMALL
    source = house.drop("a.png", picture("png", 300, 240))
    copy = house.drop("deep/b.png", source.read_bytes())
    house.drop("fits.jpg", picture("jpeg", 200, 100))
    assert await house.drain() == 0
    job = house.job("a.png")
    assert (job.width, job.height) == (300, 240)
    assert job.sha256 == house.dropped[source]
    assert job.sent is not None
    assert job.sent == Sent("png", 200, 160, job.sent.size)
    assert job.result is not None
    assert (job.result.width, job.result.height) == (400, 320)
    assert house.creates() == 2, "the copy is the same picture"
    assert house.job("fits.jpg").sent is None
    assert copy.exists()
    told = json.loads((house.outbox / "a.png.json").read_text())
    assert told["sent"] == {"format": "png", "width": 200, "height": 160, "size": job.sent.size}
    assert list((house.root / "state/journal.db.spool").iterdir()) == []


async def test_too_many_bytes_are_made_fewer(house: House) -> None:
    house.rule, house.api = {"oversize": "downscale"}, {"max_bytes": 20_000}
    house.drop("a.bmp", picture("bmp", 300, 240))
    assert await house.drain() == 0
    job = house.job("a.bmp")
    assert job.sent is not None
    assert job.sent.size <= 20_000 < job.stamp.size


async def test_one_that_was_rejected_for_its_size_goes_on_by_retry_once_the_rule_allows_it(house: House) -> None:
    house.api = SMALL
    house.drop("a.jpg", picture("jpeg", 300, 240))
    assert await house.drain() == 1
    assert house.job("a.jpg").state is State.REJECTED
    house.rule = {"oversize": "downscale"}
    assert main(["retry", str(house.job("a.jpg").id), "-c", str(house.configure())]) == 0
    assert await house.drain() == 0
    assert house.job("a.jpg").sent is not None


async def test_one_that_waits_to_be_made_smaller_is_rejected_if_the_rule_does_not_want_it_any_more(
    house: House,
) -> None:
    house.rule, house.api, house.top = {"oversize": "downscale"}, SMALL, {"budget": {"per_day": 4}}
    house.drop("a.jpg", picture("jpeg", 300, 240))
    assert await house.drain() == 1
    assert house.job("a.jpg").state is State.QUEUED
    house.rule, house.top = {}, {}
    assert await house.drain() == 1
    problem = house.job("a.jpg").problem
    assert problem is not None
    assert problem.code is ErrorCode.RESOLUTION_TOO_HIGH
    assert house.creates() == 0


async def test_an_original_that_changed_before_it_was_made_smaller_is_never_mixed(house: House) -> None:
    house.rule, house.api, house.top = {"oversize": "downscale"}, SMALL, {"budget": {"per_day": 4}}
    first = house.drop("a.jpg", picture("jpeg", 300, 240))
    assert await house.drain() == 1
    del house.dropped[first]
    house.drop("a.jpg", picture("jpeg", 300, 240, seed=1))
    house.top = {}
    await house.drain()
    assert [job.state for job in house.jobs()] == [State.REJECTED, State.DONE]
    assert house.creates() == 1
