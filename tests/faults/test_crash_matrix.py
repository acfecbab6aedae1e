"""Die after the n-th durable act, for n = 1, 2, ... until a run survives; then start again, and the laws must hold."""

import asyncio
from itertools import product
from pathlib import Path

import pytest

from picwish_watchd.job import State
from picwish_watchd.simulator import Simulator
from tests.support.crash import DIED
from tests.support.house import FAST, House, Process

#: A death between the intent and the answer's commit leaves a doubt, and only that one does.
_IN_DOUBT = {State.DONE, State.HELD}


async def life_and_death(root: Path, number: int, rule: dict[str, object], top: dict[str, object]) -> int:
    """One run that dies after ``number`` acts and one that does not; the exit code of the first."""
    async with Simulator(FAST) as simulator:
        root.mkdir()
        house = House(root, simulator, rule=rule, top=top)
        if top:
            house.forgiven.add(house.dropped[house.drop("a.jpg")])
        source = house.drop("a.jpg")
        first = Process(house, ("--once",), die_after=number).start()
        code = await first.ended()
        second = await Process(house, ("--once",)).start().ended()
        state = house.jobs()[-1].state
        assert state in ({State.DONE} if top else _IN_DOUBT), f"after act {number}: {state}"
        assert second == (0 if state is State.DONE else 1)
        assert house.creates() <= (2 if top else 1), f"after act {number}"
        if state is State.DONE:
            name = "a.jpg"
            assert house.results() == {name}, f"after act {number}"
            assert (house.root / "archive/a.jpg").exists() != source.exists()
            assert (house.root / "archive/a.jpg").exists() == (rule.get("on_success") == "move")
        else:
            assert source.exists()
        leftovers = [*house.root.rglob("*.part"), *(house.root / "state/journal.db.spool").iterdir()]
        assert leftovers == [], f"after act {number}"
        house.check_laws()
        return code


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("sync", "charging"), list(product((0, 1), ("at-most-once", "at-least-once"))), ids=lambda value: str(value)
)
async def test_death_after_any_durable_act_pays_once_and_loses_nothing(
    tmp_path: Path, sync: int, charging: str
) -> None:
    rule: dict[str, object] = {"sync": sync, "on_success": "move", "archive": "archive", "sidecar": False}
    top: dict[str, object] = {"charging": charging} if charging == "at-least-once" else {}
    number, survived = 1, False
    while not survived:
        batch = range(number, number + 3)
        codes = await asyncio.gather(*(life_and_death(tmp_path / str(n), n, rule, top) for n in batch))
        survived = any(code != DIED for code in codes)
        number += 3
    assert number > 15, "there are more durable acts than that"
