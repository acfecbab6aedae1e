"""An unavailable archive: originals stay in the inbox, and other work continues."""

from picwish_watchd.job import OriginalStatus
from tests.support.harness import Harness

IMAGES = 6


async def test_an_unavailable_archive_is_tried_once_for_all_waiting_originals(harness: Harness) -> None:
    harness.rule = {"on_success": "move", "archive": "nas/archive"}
    for number in range(IMAGES):
        harness.drop_file(f"{number}.jpg", seed=number)
    await harness.run_once()
    assert {job.original for job in harness.jobs()} == {OriginalStatus.WAITING}
    assert sum(job.note is not None for job in harness.jobs()) == 1, "each of them was tried separately"
    (harness.root / "nas").mkdir()
    assert await harness.run_once() == 0
    assert {job.original for job in harness.jobs()} == {OriginalStatus.MOVED}
    assert len(list((harness.root / "nas/archive").iterdir())) == IMAGES
    assert harness.count_creates() == IMAGES


async def test_the_originals_of_failures_do_not_wait_for_the_archive(harness: Harness) -> None:
    harness.rule = {"on_success": "move", "archive": "nas/archive", "on_failure": "move", "failed": "failed"}
    for number in range(IMAGES):
        harness.drop_file(f"{number}.jpg", seed=number)
    await harness.run_once()
    harness.drop_file("page.jpg", b"<html>")
    await harness.run_once()
    assert harness.job("page.jpg").original is OriginalStatus.MOVED
    assert harness.job("0.jpg").original is OriginalStatus.WAITING
