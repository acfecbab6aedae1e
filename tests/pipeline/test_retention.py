"""A daemon that runs for years: what it forgets, and that it never pays for an image again because of it."""

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
from tests.support.harness import FAST_SETTINGS, KEY, Harness
from tests.support.sample_images import make_image

DAY = 86_400.0


class ShiftedClock(Clock):
    """The machine's clock, shifted by a number of days."""

    def __init__(self, days: float) -> None:
        self._ahead = days * DAY

    def now(self) -> float:
        return super().now() + self._ahead


async def drain_days_later(harness: Harness, days: float) -> int:
    return await Daemon(harness.load_config(), KEY, clock=ShiftedClock(days)).run(once=True)


def show_job(harness: Harness) -> str:
    """Return the output of `show 1`."""
    out = io.StringIO()
    with redirect_stdout(out):
        assert main(["show", "1", "-c", str(harness.write_config())]) == 0
    return out.getvalue()


def count_history_lines(harness: Harness) -> int:
    """Return the number of history events in the journal."""
    reader = JournalReader.open(harness.journal)
    try:
        return sum(len(reader.history(job.id)) for job in reader.jobs())
    finally:
        reader.close()


def read_spending(harness: Harness) -> list[tuple[int, int, str]]:
    reader = JournalReader.open(harness.journal)
    try:
        return [(one.job, one.credits, one.state) for one in reader.iter_spending()]
    finally:
        reader.close()


async def test_run_once_prunes_old_histories_at_its_end_and_logs_it(tmp_path: Path) -> None:
    async with Simulator(FAST_SETTINGS) as simulator:
        harness = Harness(tmp_path, simulator, top_level={"keep": "32d"})
        for number in range(3):
            harness.drop_file(f"{number}.jpg", seed=number)
        assert await drain_days_later(harness, 0) == 0
        before = count_history_lines(harness)
        assert await drain_days_later(harness, 31) == 0
        assert count_history_lines(harness) == before
        assert await drain_days_later(harness, 33) == 0
        assert count_history_lines(harness) == 3
        harness.top_level["keep"] = "forever"
        harness.drop_file("3.jpg", seed=3)
        assert await drain_days_later(harness, 34) == 0
        assert await drain_days_later(harness, 3000) == 0
        assert count_history_lines(harness) > 4
        harness.check_laws()


@pytest.mark.untraced
async def test_years_of_pruning_never_pay_for_an_image_twice(tmp_path: Path) -> None:
    """Originals that remain, copies, results that come back, and reused names, all after years."""
    dice = random.Random(7)
    names = (f"{number}.jpg" for number in count())
    async with Simulator(FAST_SETTINGS) as simulator:
        harness = Harness(tmp_path, simulator, top_level={"keep": "32d"})
        contents = [make_image("jpeg", seed=seed) for seed in range(3)]
        for data in contents:
            harness.drop_file(next(names), data)
        days = 0.0
        for _ in range(4):
            await drain_days_later(harness, days)
            ledger = read_spending(harness)
            days += dice.choice([20, 40, 500])
            harness.drop_file(next(names), dice.choice(contents))
            harness.drop_file(next(names), dice.choice(sorted(harness.outbox.iterdir())).read_bytes())
            name = dice.choice(sorted(harness.inbox.iterdir()))
            name.rename(harness.inbox / next(names))
            harness.dropped.pop(name, None)
            await drain_days_later(harness, days)
            assert read_spending(harness) == ledger, "a known image was paid again"
            contents.append(make_image("jpeg", seed=10 + len(contents)))
            harness.drop_file(next(names), contents[-1])
            await drain_days_later(harness, days)
        harness.check_laws()
        assert harness.count_creates() == len(contents)
        assert len(harness.jobs()) == len(harness.jobs(State.DONE))
        assert sum(credits for _, credits, _ in read_spending(harness)) == simulator.credits_used == 5 * len(contents)
        assert count_history_lines(harness) < 2 * len(harness.jobs()) + 20


async def test_show_of_a_pruned_job_says_that_its_history_is_gone_and_what_it_cost(tmp_path: Path) -> None:
    async with Simulator(FAST_SETTINGS) as simulator:
        harness = Harness(tmp_path, simulator, top_level={"keep": "32d"})
        harness.drop_file("a.jpg")
        await drain_days_later(harness, 0)
        assert "older than" not in show_job(harness)
        await drain_days_later(harness, 40)
    output = show_job(harness)
    assert "job 1 is older than `keep`: only the end of its history is left; all its charges are kept" in output
    assert "credits" in output
    assert "done" in output
