"""Two rules that share an outbox: each result has its own name, and partial copies left by a crash are removed."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from picwish_watchd.daemon.daemon import Daemon
from picwish_watchd.job import State
from picwish_watchd.pipeline import deliver, target_folders
from tests.pipeline.test_deliver import make_immutable
from tests.support.harness import KEY, Harness, wait_until


@pytest.fixture(autouse=True)
def _short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliver, "_RETRY_DELAY", 0.1)


def configure_shared_outbox(harness: Harness, outbox: str, **settings: str) -> None:
    """Configure the rules left and right with one outbox."""
    (harness.root / "inbox2").mkdir()
    harness.rule = {"name": "left", "outbox": outbox, **settings}
    harness.more_rules = [{"name": "right", "inbox": "inbox2", "outbox": outbox, **settings}]


def drop_in_both(harness: Harness, name: str, seed: int = 0) -> None:
    harness.drop_file(name, seed=seed)
    harness.drop_file(name, seed=seed, inbox="inbox2")
    # Each of the two rules pays for it.
    harness.may_be_paid_twice.add(harness.dropped[harness.inbox / name])


def check_results(harness: Harness, outbox: Path, names: set[str]) -> None:
    assert {str(path.relative_to(outbox)) for path in outbox.rglob("*") if path.is_file()} == names
    assert {job.output for job in harness.jobs(State.DONE)} == {outbox / name for name in names}
    assert harness.count_creates() == len(names)


@pytest.mark.parametrize("if_exists", ["rename", "overwrite"])
async def test_one_image_of_two_rules_gets_two_names_in_a_returning_outbox(harness: Harness, if_exists: str) -> None:
    harness.simulator.settings = replace(harness.simulator.settings, processing=(2.5, 0.1))
    nas = harness.root / "nas"
    nas.mkdir()
    configure_shared_outbox(harness, "nas/outbox", if_exists=if_exists)
    # These are more than are delivered at the same time.
    for number in range(6):
        drop_in_both(harness, f"{number}.jpg", seed=number)
    run = asyncio.create_task(harness.run_once())
    await wait_until(lambda: harness.journal.exists() and len(harness.jobs(State.PENDING)) == 12)
    nas.rename(harness.root / "unmounted")
    assert await run == 1
    assert len(harness.jobs(State.DELIVERING)) == 12
    (harness.root / "unmounted").rename(nas)
    assert await harness.run_once() == 0
    check_results(harness, nas / "outbox", {f"{number}{end}.jpg" for number in range(6) for end in ("", "-1")})


@asynccontextmanager
async def running_daemon(harness: Harness) -> AsyncIterator[Daemon]:
    daemon = Daemon(harness.load_config(), KEY)
    running = asyncio.create_task(daemon.run())
    try:
        yield daemon
    finally:
        daemon.stop()
        await running


def create_part_file(folder: Path) -> Path:
    """Create a partial copy as a crash leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / ".picwish-7-0123abcd.part"
    part.write_bytes(b"half")
    return part


@contextmanager
def wait_until_outbox_away(harness: Harness) -> Iterator[None]:
    nas = harness.root / "nas"
    nas.rename(harness.root / "unmounted")
    yield
    (harness.root / "unmounted").rename(nas)


async def test_an_outbox_is_swept_of_part_files_when_it_returns(harness: Harness) -> None:
    harness.simulator.settings = replace(harness.simulator.settings, processing=(2.5, 0.1))
    harness.rule = {"outbox": "nas/outbox"}
    part = create_part_file(harness.root / "nas/outbox")
    harness.drop_file("a.jpg")
    async with running_daemon(harness):
        await wait_until(lambda: harness.journal.exists() and bool(harness.jobs(State.PENDING)))
        with wait_until_outbox_away(harness):
            await wait_until(
                lambda: any("cannot be used" in (job.note or "") for job in harness.jobs(State.DELIVERING))
            )
        await wait_until(lambda: bool(harness.jobs(State.DONE)))
    assert not part.exists()


async def test_an_unremovable_part_file_is_removed_later(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_folders, "_SWEEP_INTERVAL", 0.0)
    part = create_part_file(harness.outbox / "sub")
    async with running_daemon(harness):
        with make_immutable(part.parent):
            harness.drop_file("a.jpg", seed=1)
            await wait_until(lambda: harness.journal.exists() and len(harness.jobs(State.DONE)) == 1)
        assert part.exists()
        harness.drop_file("b.jpg", seed=2)
        await wait_until(lambda: len(harness.jobs(State.DONE)) == 2)
    assert not part.exists()


async def test_an_outbox_that_is_a_link_is_swept(harness: Harness) -> None:
    part = create_part_file(harness.root / "disk")
    harness.outbox.symlink_to("disk")
    harness.drop_file("a.jpg")
    assert await harness.run_once() == 0
    assert not part.exists()
