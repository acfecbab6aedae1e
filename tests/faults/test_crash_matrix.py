"""Crash after the n-th durable act, for n = 1, 2, ... until a run survives; start again, and the laws must hold.

The run that follows a crash is crashed as well. The test suite takes a sample of these pairs of crashes; run all of
them with ``python -m tests.faults.test_crash_matrix``.
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
from tests.support.crash_points import CRASH_EXIT_CODE
from tests.support.harness import FAST_SETTINGS, DaemonProcess, Harness

pytestmark = pytest.mark.untraced

# Number of runs at the same time.
_CONCURRENT_RUNS = 3
# Longest time of one run in seconds.
_RUN_TIMEOUT = 60.0
_VARIANTS = list(product((0, 1), ("at-most-once", "at-least-once")))


@dataclass(frozen=True)
class CrashScenario:
    """Runs of one harness with one `charging` setting that are crashed."""

    root: Path
    sync: int
    charging: str

    async def run_with_crashes(self, *crash_points: int) -> list[bool]:
        """Crash one run after each of these numbers of acts, then run without a crash; return which runs crashed."""
        context = "after acts " + ", ".join(map(str, crash_points))
        rule = {"sync": self.sync, "on_success": "move", "archive": "archive", "sidecar": False}
        root = self.root / "-".join(map(str, crash_points))
        root.mkdir()
        async with Simulator(FAST_SETTINGS) as simulator:
            harness = Harness(root, simulator, rule=rule, top_level={"charging": self.charging})
            source = harness.drop_file("a.jpg")
            if self.charging == "at-least-once":
                harness.may_be_paid_twice.add(harness.dropped[source])
            runs = [DaemonProcess(harness, ("--once",), crash_after=number) for number in (*crash_points, None)]
            *codes, last = [await run.start().wait_for_exit(_RUN_TIMEOUT) for run in runs]
            crashed = [code == CRASH_EXIT_CODE for code in codes]
            assert set(codes) <= {0, 1, CRASH_EXIT_CODE}, context
            self._check_outcome(harness, source, last, crashed, context)
            return crashed

    def _check_outcome(self, harness: Harness, source: Path, last: int, crashed: list[bool], context: str) -> None:
        """Assert that a crash between the intent and the response's commit, and no other, leaves a doubt."""
        again = self.charging == "at-least-once"
        state = harness.jobs()[-1].state
        assert state in ({State.DONE} if again else {State.DONE, State.HELD}), f"{context}: {state}"
        # The last run had nothing to do.
        held_before = state is State.HELD and len(crashed) > 1
        assert last in ({0, 1} if held_before else {0 if state is State.DONE else 1}), context
        assert harness.count_creates() <= (1 + sum(crashed) if again else 1), context
        if state is State.DONE:
            assert harness.results() == {"a.jpg"}, context
            assert (harness.root / "archive/a.jpg").exists(), context
            assert not source.exists(), context
        else:
            assert source.exists(), context
        leftovers = [*harness.root.rglob("*.part"), *(harness.root / "state/journal.db.spool").iterdir()]
        assert leftovers == [], context
        harness.check_laws()


async def find_surviving_run(live: Callable[[int], Awaitable[bool]]) -> int:
    """Crash after 1, 2, 3, ... acts, some runs at a time, until one survives, and return its number."""
    numbers, survivors = count(1), list[int]()

    async def work() -> None:
        while not survivors:
            number = next(numbers)
            if not await live(number):
                survivors.append(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(_CONCURRENT_RUNS):
            group.create_task(work())
    return min(survivors)


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("sync", "charging"), _VARIANTS)
async def test_a_crash_after_any_durable_act_pays_once_and_loses_nothing(
    tmp_path: Path, sync: int, charging: str
) -> None:
    scenario = CrashScenario(tmp_path, sync, charging)

    async def run_and_crash(number: int) -> bool:
        return (await scenario.run_with_crashes(number))[0]

    assert await find_surviving_run(run_and_crash) > 15, "there are more durable acts than that"


@pytest.mark.timeout(200)
async def test_a_crash_during_crash_recovery_pays_once_and_loses_nothing(tmp_path: Path) -> None:
    chance = random.Random(20261122)
    scenarios = []
    for sync, charging in _VARIANTS:
        (root := tmp_path / f"{sync}-{charging}").mkdir()
        scenarios.append(CrashScenario(root, sync, charging))
    firsts = range(chance.randrange(1, 5), 33, 4)
    # The later the first crash, the fewer acts are left for the second run.
    pairs = [(first, chance.randrange(1, 30 - first // 2)) for first in firsts for _ in range(3)]
    todo = [(scenarios[n % len(scenarios)], pair) for n, pair in enumerate(pairs)]
    crashed = await _run_in_batches(todo)
    assert sum(all(each) for each in crashed) > len(crashed) / 3, "too few runs crashed twice"


async def _run_in_batches(todo: Iterable[tuple[CrashScenario, tuple[int, int]]]) -> list[list[bool]]:
    width = asyncio.Semaphore(_CONCURRENT_RUNS)

    async def one(scenario: CrashScenario, pair: tuple[int, int]) -> list[bool]:
        async with width:
            return await scenario.run_with_crashes(*pair)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(scenario, pair)) for scenario, pair in todo]
    return [task.result() for task in tasks]


async def crash_all_pairs(root: Path) -> None:
    """Combine every crash of a first run with every crash of the second."""
    for sync, charging in _VARIANTS:
        (folder := root / f"{sync}-{charging}").mkdir()
        scenario = CrashScenario(folder, sync, charging)
        for first in count(1):
            survived = asyncio.Event()

            async def run_and_crash(
                second: int,
                scenario: CrashScenario = scenario,
                first: int = first,
                first_survived: asyncio.Event = survived,
            ) -> bool:
                one, two = await scenario.run_with_crashes(first, second)
                if not one:
                    first_survived.set()
                return two

            second = await find_surviving_run(run_and_crash)
            print(f"sync={sync} {charging}: died after act {first}, then after each of {second - 1}", flush=True)
            if survived.is_set():
                break


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(crash_all_pairs(Path(name)))
