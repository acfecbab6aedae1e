"""A picture that is whole, and then grows: a second picture behind it, or what a camera adds late."""

import pytest

from picwish_watchd.job import ErrorCode, State
from picwish_watchd.pipeline import prepare
from tests.support.house import Harness
from tests.support.pictures import make_image


async def test_a_paid_image_that_grows_is_a_new_image_with_its_own_result(
    house: Harness,
) -> None:
    source = house.drop_file("a.jpg", seed=1)
    assert await house.run_once() == 0
    with source.open("ab") as file:
        file.write(make_image("jpeg", seed=2))
    assert await house.run_once() == 0
    assert await house.run_once() == 0
    assert [(job.state, job.credits) for job in house.jobs()] == [(State.DONE, 5), (State.DONE, 5)]
    assert house.results() == {"a.jpg", "a-1.jpg"}
    assert house.count_creates() == 2
    # what was dropped has grown: it is nowhere as it was
    house.dropped.clear()


async def test_an_image_that_grows_while_queued_is_paid_once_in_its_final_form(
    house: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "_RETRY_DELAY", 0.1)
    house.rule = {"outbox": "nas/outbox"}
    source = house.drop_file("a.jpg", seed=1)
    assert await house.run_once() == 1, "the outbox is away"
    with source.open("ab") as file:
        file.write(make_image("jpeg", seed=2))
    (house.root / "nas").mkdir()
    await house.run_once()
    first, second = house.jobs()
    assert first.problem is not None
    assert (first.state, first.problem.code, first.credits) == (State.REJECTED, ErrorCode.SOURCE_CHANGED, 0)
    assert (second.state, second.credits) == (State.DONE, 5)
    assert second.output == house.root / "nas/outbox/a.jpg"
    assert house.count_creates() == 1
    house.dropped.clear()
