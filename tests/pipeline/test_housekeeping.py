"""A daemon that grows old: what it forgets, and that it never buys a picture again for it."""

import io
import random
from contextlib import redirect_stdout
from itertools import count
from pathlib import Path

import pytest

from picwish_watchd.cli.main import main
from picwish_watchd.clock import Clock
from picwish_watchd.daemon.daemon import Daemon
from picwish_watchd.job import State
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.simulator import Simulator
from tests.support.house import FAST, KEY, House
from tests.support.pictures import picture

DAY = 86_400.0


class Later(Clock):
    """The machine's clocks, so many days ahead."""

    def __init__(self, days: float) -> None:
        self._ahead = days * DAY

    def now(self) -> float:
        return super().now() + self._ahead


async def drain(house: House, days: float) -> int:
    return await Daemon(house.config(), KEY, clock=Later(days)).run(once=True)


def shown(house: House) -> str:
    """What `show 1` tells."""
    out = io.StringIO()
    with redirect_stdout(out):
        assert main(["show", "1", "-c", str(house.configure())]) == 0
    return out.getvalue()


def lines(house: House) -> int:
    """Of history, in all."""
    reader = JournalReader.open(house.journal)
    try:
        return sum(len(reader.history(job.id)) for job in reader.jobs())
    finally:
        reader.close()


def spent(house: House) -> list[tuple[int, int, str]]:
    reader = JournalReader.open(house.journal)
    try:
        return [(one.job, one.credits, one.state) for one in reader.spending()]
    finally:
        reader.close()


async def test_run_once_forgets_old_histories_at_its_end_and_says_so(tmp_path: Path) -> None:
    async with Simulator(FAST) as simulator:
        house = House(tmp_path, simulator, top={"keep": "32d"})
        for number in range(3):
            house.drop(f"{number}.jpg", seed=number)
        assert await drain(house, 0) == 0
        before = lines(house)
        assert await drain(house, 31) == 0
        assert lines(house) == before
        assert await drain(house, 33) == 0
        assert lines(house) == 3
        house.top["keep"] = "forever"
        house.drop("3.jpg", seed=3)
        assert await drain(house, 34) == 0
        assert await drain(house, 3000) == 0
        assert lines(house) > 4
        house.check_laws()


@pytest.mark.untraced
async def test_a_life_of_years_in_which_nothing_is_ever_bought_twice(tmp_path: Path) -> None:
    """Originals that still lie there, copies, results that come back, names that are used again: all after years."""
    dice = random.Random(7)
    names = (f"{number}.jpg" for number in count())
    async with Simulator(FAST) as simulator:
        house = House(tmp_path, simulator, top={"keep": "32d"})
        contents = [picture("jpeg", seed=seed) for seed in range(3)]
        for data in contents:
            house.drop(next(names), data)
        days = 0.0
        for _ in range(4):
            await drain(house, days)
            ledger = spent(house)
            days += dice.choice([20, 40, 500])
            house.drop(next(names), dice.choice(contents))
            house.drop(next(names), dice.choice(sorted(house.outbox.iterdir())).read_bytes())
            taken = dice.choice(sorted(house.inbox.iterdir()))
            taken.rename(house.inbox / next(names))
            house.dropped.pop(taken, None)
            await drain(house, days)
            assert spent(house) == ledger, "what was known was bought"
            contents.append(picture("jpeg", seed=10 + len(contents)))
            house.drop(next(names), contents[-1])
            await drain(house, days)
        house.check_laws()
        assert house.creates() == len(contents)
        assert len(house.jobs()) == len(house.jobs(State.DONE))
        assert sum(credits for _, credits, _ in spent(house)) == simulator.credits == 5 * len(contents)
        assert lines(house) < 2 * len(house.jobs()) + 20


async def test_show_says_that_the_history_of_an_old_job_has_gone_and_what_it_cost(tmp_path: Path) -> None:
    async with Simulator(FAST) as simulator:
        house = House(tmp_path, simulator, top={"keep": "32d"})
        house.drop("a.jpg")
        await drain(house, 0)
        assert "older than" not in shown(house)
        await drain(house, 40)
    told = shown(house)
    assert "job 1 is older than `keep`: only the end of its history was kept; its charges all stay" in told
    assert "credits" in told
    assert "done" in told
