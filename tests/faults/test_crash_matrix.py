"""Die after the n-th durable act, for n = 1, 2, ... until a run survives; then start again, and the laws must hold.

And die again in the run that takes up what the first death left. The suite takes a sample of these pairs; all of them:
``python -m tests.faults.test_crash_matrix``.
"""

import asyncio
import random
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from itertools import count, product
from pathlib import Path

import pytest

from picwish_watchd.job import State
from picwish_watchd.simulator import Simulator
from tests.support.crash import DIED
from tests.support.house import FAST, House, Process

pytestmark = pytest.mark.untraced

_WIDTH = 3  # lives at a time
_PATIENCE = 60.0  # seconds for one run
_VARIANTS = list(product((0, 1), ("at-most-once", "at-least-once")))


@dataclass(frozen=True)
class Fate:
    """One house, in which runs die."""

    root: Path
    sync: int
    charging: str

    async def live(self, *deaths: int) -> list[bool]:
        """Runs that die after so many acts each, and one that does not; answers which of them did die."""
        told = "after acts " + ", ".join(map(str, deaths))
        rule = {"sync": self.sync, "on_success": "move", "archive": "archive", "sidecar": False}
        root = self.root / "-".join(map(str, deaths))
        root.mkdir()
        async with Simulator(FAST) as simulator:
            house = House(root, simulator, rule=rule, top={"charging": self.charging})
            source = house.drop("a.jpg")
            if self.charging == "at-least-once":
                house.forgiven.add(house.dropped[source])
            runs = [Process(house, ("--once",), die_after=number) for number in (*deaths, None)]
            *codes, last = [await run.start().ended(_PATIENCE) for run in runs]
            died = [code == DIED for code in codes]
            assert set(codes) <= {0, 1, DIED}, told
            self._judge(house, source, last, died, told)
            return died

    def _judge(self, house: House, source: Path, last: int, died: list[bool], told: str) -> None:
        """A death between the intent and the answer's commit leaves a doubt, and only that one does."""
        again = self.charging == "at-least-once"
        state = house.jobs()[-1].state
        assert state in ({State.DONE} if again else {State.DONE, State.HELD}), f"{told}: {state}"
        held_before = state is State.HELD and len(died) > 1  # the last run had nothing to do any more
        assert last in ({0, 1} if held_before else {0 if state is State.DONE else 1}), told
        assert house.creates() <= (1 + sum(died) if again else 1), told
        if state is State.DONE:
            assert house.results() == {"a.jpg"}, told
            assert (house.root / "archive/a.jpg").exists(), told
            assert not source.exists(), told
        else:
            assert source.exists(), told
        leftovers = [*house.root.rglob("*.part"), *(house.root / "state/journal.db.spool").iterdir()]
        assert leftovers == [], told
        house.check_laws()


async def until_one_survives(live: Callable[[int], Awaitable[bool]]) -> int:
    """Lives 1, 2, 3, ... , some at a time, until one of them does not die; the number of that one."""
    numbers, survivors = count(1), list[int]()

    async def work() -> None:
        while not survivors:
            number = next(numbers)
            if not await live(number):
                survivors.append(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(_WIDTH):
            group.create_task(work())
    return min(survivors)


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("sync", "charging"), _VARIANTS)
async def test_death_after_any_durable_act_pays_once_and_loses_nothing(
    tmp_path: Path, sync: int, charging: str
) -> None:
    fate = Fate(tmp_path, sync, charging)

    async def die(number: int) -> bool:
        return (await fate.live(number))[0]

    assert await until_one_survives(die) > 15, "there are more durable acts than that"


@pytest.mark.timeout(200)
async def test_death_while_taking_up_what_a_death_left_pays_once_and_loses_nothing(tmp_path: Path) -> None:
    chance = random.Random(20261122)
    fates = []
    for sync, charging in _VARIANTS:
        (root := tmp_path / f"{sync}-{charging}").mkdir()
        fates.append(Fate(root, sync, charging))
    firsts = range(chance.randrange(1, 5), 33, 4)
    # the later the first one died, the fewer acts are left for the second
    pairs = [(first, chance.randrange(1, 30 - first // 2)) for first in firsts for _ in range(3)]
    todo = [(fates[n % len(fates)], pair) for n, pair in enumerate(pairs)]
    died = await _some_at_a_time(todo)
    assert sum(all(each) for each in died) > len(died) / 3, "too few of them died twice"


async def _some_at_a_time(todo: Iterable[tuple[Fate, tuple[int, int]]]) -> list[list[bool]]:
    width = asyncio.Semaphore(_WIDTH)

    async def one(fate: Fate, pair: tuple[int, int]) -> list[bool]:
        async with width:
            return await fate.live(*pair)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(fate, pair)) for fate, pair in todo]
    return [task.result() for task in tasks]


async def all_pairs(root: Path) -> None:
    """Every death of a first run, with every death of the second."""
    for sync, charging in _VARIANTS:
        (folder := root / f"{sync}-{charging}").mkdir()
        fate = Fate(folder, sync, charging)
        for first in count(1):
            survived = asyncio.Event()

            async def die(second: int, fate: Fate = fate, first: int = first, told: asyncio.Event = survived) -> bool:
                one, two = await fate.live(first, second)
                if not one:
                    told.set()
                return two

            second = await until_one_survives(die)
            print(f"sync={sync} {charging}: died after act {first}, then after each of {second - 1}", flush=True)
            if survived.is_set():
                break


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(all_pairs(Path(name)))
