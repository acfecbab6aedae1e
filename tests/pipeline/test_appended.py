"""A picture that is whole, and then grows: a second picture behind it, or what a camera adds late."""

import pytest

from picwish_watchd.job import ErrorCode, State
from picwish_watchd.pipeline import prepare
from tests.support.house import House
from tests.support.pictures import picture


async def test_what_is_added_to_a_picture_that_was_paid_makes_it_another_one_with_a_result_of_its_own(
    house: House,
) -> None:
    source = house.drop("a.jpg", seed=1)
    assert await house.drain() == 0
    with source.open("ab") as file:
        file.write(picture("jpeg", seed=2))
    assert await house.drain() == 0
    assert await house.drain() == 0
    assert [(job.state, job.credits) for job in house.jobs()] == [(State.DONE, 5), (State.DONE, 5)]
    assert house.results() == {"a.jpg", "a-1.jpg"}
    assert house.creates() == 2
    house.dropped.clear()  # what was dropped has grown: it is nowhere as it was


async def test_of_a_picture_that_grows_while_it_waits_only_what_it_has_become_is_paid(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "_PAUSE", 0.1)
    house.rule = {"outbox": "nas/outbox"}
    source = house.drop("a.jpg", seed=1)
    assert await house.drain() == 1, "the outbox is away"
    with source.open("ab") as file:
        file.write(picture("jpeg", seed=2))
    (house.root / "nas").mkdir()
    await house.drain()
    first, second = house.jobs()
    assert first.problem is not None
    assert (first.state, first.problem.code, first.credits) == (State.REJECTED, ErrorCode.SOURCE_CHANGED, 0)
    assert (second.state, second.credits) == (State.DONE, 5)
    assert second.output == house.root / "nas/outbox/a.jpg"
    assert house.creates() == 1
    house.dropped.clear()
