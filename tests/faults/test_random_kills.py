"""SIGKILL at seeded random moments, with a faulty PicWish: every image ends delivered once or held, none is paid twice.

The long run is a command: ``python -m tests.faults.test_random_kills --images 500 --kills 150 --seed 1``.
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
from picwish_watchd.simulator import Cut, EndIn, Fault, Hang, Reply, Reset, Settings, Simulator, Trim
from tests.support.house import House, Process

pytestmark = pytest.mark.untraced

#: Longer than any process lives before its kill. But the last one is not killed, and would wait two minutes for the
#: answer to a POST: giving up early only makes doubt (see `picwish_watchd.picwish.client.Patience`).
_SILENCE = 10.0  # seconds
_SETTINGS = Settings(qps=None, processing=(0.15, 0.5), latency=0.004, enhance="echo")


@dataclass(frozen=True)
class Tally:
    """What came of a run."""

    images: int
    kills: int
    done: int
    held: int
    charges: int
    creates: int


def spoil(simulator: Simulator, chance: random.Random, images: int) -> None:
    """Faults of every kind, in requests drawn by lot."""
    for action in (Reply(429), Reply(503), Reset(at="work"), Reply(500), EndIn(-1), Hang(at="work", seconds=_SILENCE)):
        for _ in range(max(1, images // 60)):
            simulator.script.add(Fault("create", action, nth=chance.randrange(1, images)))
    for spoiler in (Reply(500), Reset(at="head"), Cut(after=30)):
        for _ in range(max(1, images // 30)):
            simulator.script.add(Fault("query", spoiler, nth=chance.randrange(1, 2 * images)))
            simulator.script.add(Fault("download", spoiler, nth=chance.randrange(1, images)))
    simulator.script.add(Fault("download", Trim(keep=300), nth=chance.randrange(1, images)))


async def torment(root: Path, *, images: int, kills: int, seed: int) -> Tally:
    """Runs the daemon again and again and kills it; then lets it finish, and checks the laws."""
    chance = random.Random(seed)
    async with Simulator(_SETTINGS) as simulator:
        house = House(root, simulator, api={"qps": 100, "timeout": "2s"}, rule={"settle": "20ms"})
        spoil(simulator, chance, images)
        waiting = list(range(images))
        for _ in range(kills):
            for number in [waiting.pop() for _ in range(min(len(waiting), -(-images // max(1, kills - 2))))]:
                house.drop(f"{number % 7}/{number}.jpg", seed=number)
            process = Process(house).start()
            await asyncio.sleep(chance.uniform(0.4, 1.4))
            assert process.child.poll() is None, process.errors.read_text()[-2000:]
            await process.stop(signal.SIGKILL)
        code = await Process(house, ("--once",)).start().ended(240)
        assert code in (0, 1)
        return judge(house, kills)


def judge(house: House, kills: int) -> Tally:
    """The laws, and that nothing is left over."""
    house.check_laws()
    states = Counter(job.state for job in house.jobs())
    assert set(states) <= {State.DONE, State.HELD, State.FAILED}, states
    assert len({job.source for job in house.jobs()}) == len(house.jobs()) == len(house.dropped)
    assert len(house.results()) == states[State.DONE]
    charged = Counter(charge.sha256 for charge in house.simulator.ledger)
    assert max(charged.values()) == 1
    assert list(house.root.rglob("*.part")) == []
    assert list((house.root / "state/journal.db.spool").iterdir()) == []
    return Tally(
        images=len(house.dropped), kills=kills, done=states[State.DONE], held=states[State.HELD],
        charges=len(house.simulator.ledger), creates=house.creates(),
    )  # fmt: skip


@pytest.mark.timeout(300)
async def test_random_kills_never_pay_twice_and_lose_nothing(tmp_path: Path) -> None:
    tally = await torment(tmp_path, images=60, kills=15, seed=20261122)
    assert tally.done > tally.images / 2


def main() -> None:
    """The long run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = asyncio.run(torment(Path(folder), images=args.images, kills=args.kills, seed=args.seed))
    print(f"seed {args.seed}: {tally}")


if __name__ == "__main__":
    main()
