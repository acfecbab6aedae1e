"""Complete images that grow later: by a second image after the first, or by what a camera appends."""

import pytest

from picwish_watchd.job import ErrorCode, State
from picwish_watchd.pipeline import prepare
from tests.support.harness import Harness
from tests.support.sample_images import make_image


async def test_a_paid_image_that_grows_is_a_new_image_with_its_own_result(
    harness: Harness,
) -> None:
    source = harness.drop_file("a.jpg", seed=1)
    assert await harness.run_once() == 0
    with source.open("ab") as file:
        file.write(make_image("jpeg", seed=2))
    assert await harness.run_once() == 0
    assert await harness.run_once() == 0
    assert [(job.state, job.credits) for job in harness.jobs()] == [(State.DONE, 5), (State.DONE, 5)]
    assert harness.results() == {"a.jpg", "a-1.jpg"}
    assert harness.count_creates() == 2
    # The dropped file has grown, so its first content no longer exists.
    harness.dropped.clear()


async def test_an_image_that_grows_while_queued_is_paid_once_in_its_final_form(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "_RETRY_DELAY", 0.1)
    harness.rule = {"outbox": "nas/outbox"}
    source = harness.drop_file("a.jpg", seed=1)
    assert await harness.run_once() == 1, "the outbox is unavailable"
    with source.open("ab") as file:
        file.write(make_image("jpeg", seed=2))
    (harness.root / "nas").mkdir()
    await harness.run_once()
    first, second = harness.jobs()
    assert first.problem is not None
    assert (first.state, first.problem.code, first.credits) == (State.REJECTED, ErrorCode.SOURCE_CHANGED, 0)
    assert (second.state, second.credits) == (State.DONE, 5)
    assert second.output == harness.root / "nas/outbox/a.jpg"
    assert harness.count_creates() == 1
    harness.dropped.clear()
