"""An archive that is away keeps the originals where they are, and the daemon from little else."""

from picwish_watchd.job import Original
from tests.support.house import House

IMAGES = 6


async def test_an_archive_that_is_away_is_tried_once_for_all_originals_that_wait_for_it(house: House) -> None:
    house.rule = {"on_success": "move", "archive": "nas/archive"}
    for number in range(IMAGES):
        house.drop(f"{number}.jpg", seed=number)
    await house.drain()
    assert {job.original for job in house.jobs()} == {Original.WAITING}
    assert sum(job.note is not None for job in house.jobs()) == 1, "each of them was tried by itself"
    (house.root / "nas").mkdir()
    assert await house.drain() == 0
    assert {job.original for job in house.jobs()} == {Original.MOVED}
    assert len(list((house.root / "nas/archive").iterdir())) == IMAGES
    assert house.creates() == IMAGES


async def test_the_originals_of_failures_do_not_wait_for_the_archive(house: House) -> None:
    house.rule = {"on_success": "move", "archive": "nas/archive", "on_failure": "move", "failed": "failed"}
    for number in range(IMAGES):
        house.drop(f"{number}.jpg", seed=number)
    await house.drain()
    house.drop("page.jpg", b"<html>")
    await house.drain()
    assert house.job("page.jpg").original is Original.MOVED
    assert house.job("0.jpg").original is Original.WAITING
