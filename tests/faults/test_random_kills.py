"""SIGKILL at seeded random moments with a faulty PicWish: every image is delivered once or held, none is paid twice.

Start a long run with ``python -m tests.faults.test_random_kills --images 500 --kills 150 --seed 1``.
"""

import argparse
import asyncio
import random
import signal
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from picwish_watchd.job import State
from picwish_watchd.simulator import CutResponse, EndIn, Fault, Hang, Reply, Reset, Settings, Simulator, TruncateBody
from tests.support.harness import DaemonProcess, Harness

pytestmark = pytest.mark.untraced

#: Seconds. This exceeds the life of any process that is killed. The last process is not killed and would wait two
#: minutes for the response to a POST; giving up early only leaves doubt (see `picwish_watchd.picwish.RequestTimeouts`).
_HANG_SECONDS = 10.0
_SETTINGS = Settings(qps=None, processing=(0.15, 0.5), latency=0.004, enhance="echo")


@dataclass(frozen=True)
class RunSummary:
    """Figures of a run."""

    images: int
    kills: int
    done: int
    held: int
    charges: int
    creates: int


def add_random_faults(simulator: Simulator, chance: random.Random, images: int) -> None:
    """Add random faults of every kind to the simulator."""
    for action in (
        Reply(429),
        Reply(503),
        Reset(at="work"),
        Reply(500),
        EndIn(-1),
        Hang(at="work", seconds=_HANG_SECONDS),
    ):
        for _ in range(max(1, images // 60)):
            simulator.script.add(Fault("create", action, nth=chance.randrange(1, images)))
    for spoiler in (Reply(500), Reset(at="head"), CutResponse(after=30)):
        for _ in range(max(1, images // 30)):
            simulator.script.add(Fault("query", spoiler, nth=chance.randrange(1, 2 * images)))
            simulator.script.add(Fault("download", spoiler, nth=chance.randrange(1, images)))
    simulator.script.add(Fault("download", TruncateBody(keep=300), nth=chance.randrange(1, images)))


async def run_with_random_kills(root: Path, *, images: int, kills: int, seed: int) -> RunSummary:
    """Kill the daemon repeatedly, then let it finish and check the laws."""
    chance = random.Random(seed)
    async with Simulator(_SETTINGS) as simulator:
        harness = Harness(root, simulator, api={"qps": 100, "timeout": "2s"}, rule={"settle": "20ms"})
        add_random_faults(simulator, chance, images)
        waiting = list(range(images))
        for _ in range(kills):
            for number in [waiting.pop() for _ in range(min(len(waiting), -(-images // max(1, kills - 2))))]:
                harness.drop_file(f"{number % 7}/{number}.jpg", seed=number)
            process = DaemonProcess(harness).start()
            await asyncio.sleep(chance.uniform(0.4, 1.4))
            assert process.child.poll() is None, process.errors.read_text()[-2000:]
            await process.stop(signal.SIGKILL)
        code = await DaemonProcess(harness, ("--once",)).start().wait_for_exit(240)
        assert code in (0, 1)
        return summarize_run(harness, kills)


def summarize_run(harness: Harness, kills: int) -> RunSummary:
    """Check the laws and that no work is left, and return the figures."""
    harness.check_laws()
    states = Counter(job.state for job in harness.jobs())
    assert set(states) <= {State.DONE, State.HELD, State.FAILED}, states
    assert len({job.source for job in harness.jobs()}) == len(harness.jobs()) == len(harness.dropped)
    assert len(harness.results()) == states[State.DONE]
    charged = Counter(charge.sha256 for charge in harness.simulator.ledger)
    assert max(charged.values()) == 1
    assert list(harness.root.rglob("*.part")) == []
    assert list((harness.root / "state/journal.db.spool").iterdir()) == []
    return RunSummary(
        images=len(harness.dropped),
        kills=kills,
        done=states[State.DONE],
        held=states[State.HELD],
        charges=len(harness.simulator.ledger),
        creates=harness.count_creates(),
    )


@pytest.mark.timeout(300)
async def test_random_kills_never_pay_twice_and_lose_nothing(tmp_path: Path) -> None:
    summary = await run_with_random_kills(tmp_path, images=60, kills=15, seed=20261122)
    assert summary.done > summary.images / 2


def main() -> None:
    """Start a long run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        summary = asyncio.run(run_with_random_kills(Path(folder), images=args.images, kills=args.kills, seed=args.seed))
    print(f"seed {args.seed}: {summary}")


if __name__ == "__main__":
    main()
