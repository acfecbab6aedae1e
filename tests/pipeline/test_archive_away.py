"""An archive that is away keeps the originals where they are, and the daemon from little else."""

from picwish_watchd.job import OriginalStatus
from tests.support.house import Harness

IMAGES = 6


async def test_an_unavailable_archive_is_tried_once_for_all_waiting_originals(house: Harness) -> None:
    house.rule = {"on_success": "move", "archive": "nas/archive"}
    for number in range(IMAGES):
        house.drop_file(f"{number}.jpg", seed=number)
    await house.run_once()
    assert {job.original for job in house.jobs()} == {OriginalStatus.WAITING}
    assert sum(job.note is not None for job in house.jobs()) == 1, "each of them was tried by itself"
    (house.root / "nas").mkdir()
    assert await house.run_once() == 0
    assert {job.original for job in house.jobs()} == {OriginalStatus.MOVED}
    assert len(list((house.root / "nas/archive").iterdir())) == IMAGES
    assert house.count_creates() == IMAGES


async def test_the_originals_of_failures_do_not_wait_for_the_archive(house: Harness) -> None:
    house.rule = {"on_success": "move", "archive": "nas/archive", "on_failure": "move", "failed": "failed"}
    for number in range(IMAGES):
        house.drop_file(f"{number}.jpg", seed=number)
    await house.run_once()
    house.drop_file("page.jpg", b"<html>")
    await house.run_once()
    assert house.job("page.jpg").original is OriginalStatus.MOVED
    assert house.job("0.jpg").original is OriginalStatus.WAITING
