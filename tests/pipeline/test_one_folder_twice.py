"""Two inboxes that a mount makes one while the daemon runs: no picture is paid by both rules."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from picwish_watchd.job import State
from tests.support.house import House, Process, until
from tests.support.mounting import can_mount, mount, umount


def told(house: House, rule: str) -> str:
    """Why the rule is not watched, as `status` says it."""
    rules = json.loads(house.report() or "{}").get("rules", {})
    return str(rules.get(rule, {}).get("reason") or "")


def watched(house: House, rule: str) -> Callable[[], bool]:
    return lambda: bool(json.loads(house.report() or "{}").get("rules", {}).get(rule, {}).get("watching"))


@pytest.mark.parametrize(("first", "second"), [("disk", "name"), ("name", "disk")])
async def test_an_inbox_that_becomes_one_with_another_rules_waits_and_is_taken_up_when_it_is_its_own(
    house: House, first: str, second: str
) -> None:
    """Whichever of the two rules comes first: the one that is watched already goes on."""
    if not can_mount():
        pytest.skip("mounting needs root and CAP_SYS_ADMIN")
    disk, name = house.root / "at" / "disk", house.root / "at" / "name"
    disk.mkdir(parents=True)
    house.inbox.rmdir()
    house.rule = {"name": first, "inbox": f"at/{first}", "rescan_interval": "100ms"}
    house.more_rules = [{**house.rule, "name": second, "inbox": f"at/{second}"}]
    process = Process(house).start()
    await until(watched(house, "disk"))
    house.drop("a.jpg", seed=1, inbox="at/disk")
    await until(lambda: len(house.jobs(State.DONE)) == 1)
    bound = house.root / "bound"
    bound.mkdir()
    mount(bound, disk)
    name.symlink_to(bound)  # at once: a folder that was seen before the mount came would wait for `approve`
    try:
        await until(lambda: "would be paid twice" in told(house, "name"))
        assert str(disk) in told(house, "name")
        house.drop("b.jpg", seed=2, inbox="at/disk")
        await until(lambda: len(house.jobs(State.DONE)) == 2)
        assert {job.rule for job in house.jobs()} == {"disk"}
    finally:
        umount(bound)
    await until(watched(house, "name"))
    own = house.drop("c.jpg", seed=3, inbox="at/name")
    await until(lambda: len(house.jobs(State.DONE)) == 3)
    assert await process.stop() == 0
    assert house.job("c.jpg").source == Path(own)
    assert house.creates() == 3
