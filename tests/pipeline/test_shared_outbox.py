"""Two rules that share an outbox: each result has a place of its own, and what a crash left of copies goes."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from picwish_watchd.daemon.daemon import Daemon
from picwish_watchd.job import State
from picwish_watchd.pipeline import deliver, target_folders
from tests.pipeline.test_deliver import immutable
from tests.support.house import KEY, House, until


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliver, "_PAUSE", 0.1)


def share(house: House, outbox: str, **settings: str) -> None:
    """Two rules, left and right, that put their results into one folder."""
    (house.root / "inbox2").mkdir()
    house.rule = {"name": "left", "outbox": outbox, **settings}
    house.more_rules = [{"name": "right", "inbox": "inbox2", "outbox": outbox, **settings}]


def drop_in_both(house: House, name: str, seed: int = 0) -> None:
    house.drop(name, seed=seed)
    house.drop(name, seed=seed, inbox="inbox2")
    house.forgiven.add(house.dropped[house.inbox / name])  # each rule pays for it


def check_places(house: House, outbox: Path, names: set[str]) -> None:
    assert {str(path.relative_to(outbox)) for path in outbox.rglob("*") if path.is_file()} == names
    assert {job.output for job in house.jobs(State.DONE)} == {outbox / name for name in names}
    assert house.creates() == len(names)


@pytest.mark.parametrize("if_exists", ["rename", "overwrite"])
async def test_one_picture_of_two_rules_gets_two_places_in_their_outbox_though_that_was_away(
    house: House, if_exists: str
) -> None:
    house.simulator.settings = replace(house.simulator.settings, processing=(2.5, 0.1))
    nas = house.root / "nas"
    nas.mkdir()
    share(house, "nas/outbox", if_exists=if_exists)
    for number in range(6):  # more than are delivered at once
        drop_in_both(house, f"{number}.jpg", seed=number)
    run = asyncio.create_task(house.drain())
    await until(lambda: house.journal.exists() and len(house.jobs(State.PENDING)) == 12)
    nas.rename(house.root / "unmounted")
    assert await run == 1
    assert len(house.jobs(State.DELIVERING)) == 12
    (house.root / "unmounted").rename(nas)
    assert await house.drain() == 0
    check_places(house, nas / "outbox", {f"{number}{end}.jpg" for number in range(6) for end in ("", "-1")})


@asynccontextmanager
async def at_work(house: House) -> AsyncIterator[Daemon]:
    daemon = Daemon(house.config(), KEY)
    running = asyncio.create_task(daemon.run())
    try:
        yield daemon
    finally:
        daemon.stop()
        await running


def leave_a_part(folder: Path) -> Path:
    """What a crash leaves of a copy."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / ".picwish-7-0123abcd.part"
    part.write_bytes(b"half")
    return part


@contextmanager
def outbox_away(house: House) -> Iterator[None]:
    nas = house.root / "nas"
    nas.rename(house.root / "unmounted")
    yield
    (house.root / "unmounted").rename(nas)


async def test_an_outbox_that_was_away_is_swept_when_it_comes_back(house: House) -> None:
    house.simulator.settings = replace(house.simulator.settings, processing=(2.5, 0.1))
    house.rule = {"outbox": "nas/outbox"}
    part = leave_a_part(house.root / "nas/outbox")
    house.drop("a.jpg")
    async with at_work(house):
        await until(lambda: house.journal.exists() and bool(house.jobs(State.PENDING)))
        with outbox_away(house):
            await until(lambda: any("cannot be used" in (job.note or "") for job in house.jobs(State.DELIVERING)))
        await until(lambda: bool(house.jobs(State.DONE)))
    assert not part.exists()


async def test_a_part_that_could_not_be_removed_is_removed_later(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_folders, "_SWEEP_AGAIN", 0.0)
    part = leave_a_part(house.outbox / "sub")
    async with at_work(house):
        with immutable(part.parent):
            house.drop("a.jpg", seed=1)
            await until(lambda: house.journal.exists() and len(house.jobs(State.DONE)) == 1)
        assert part.exists()
        house.drop("b.jpg", seed=2)
        await until(lambda: len(house.jobs(State.DONE)) == 2)
    assert not part.exists()


async def test_an_outbox_that_is_a_link_is_swept(house: House) -> None:
    part = leave_a_part(house.root / "disk")
    house.outbox.symlink_to("disk")
    house.drop("a.jpg")
    assert await house.drain() == 0
    assert not part.exists()
