"""``oversize: downscale``: what is too large is made smaller, sent and paid for once, and the job tells both sizes."""

import json

from picwish_watchd.cli import main
from picwish_watchd.job import ErrorCode, Sent, State
from tests.support.house import House
from tests.support.pictures import picture

SMALL = {"max_side": 200}


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
