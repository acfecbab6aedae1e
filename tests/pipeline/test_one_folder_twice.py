"""Two inboxes that a mount makes one while the daemon runs: no picture is paid by both rules."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from picwish_watchd.job import State
from tests.support.house import DaemonProcess, Harness, wait_until
from tests.support.mounting import can_mount, mount, unmount


def unwatched_reason(house: Harness, rule: str) -> str:
    """Why the rule is not watched, as `status` says it."""
    rules = json.loads(house.daemon_report() or "{}").get("rules", {})
    return str(rules.get(rule, {}).get("reason") or "")


def watching_check(house: Harness, rule: str) -> Callable[[], bool]:
    return lambda: bool(json.loads(house.daemon_report() or "{}").get("rules", {}).get(rule, {}).get("watching"))


@pytest.mark.parametrize(("first", "second"), [("disk", "name"), ("name", "disk")])
async def test_an_inbox_mounted_onto_another_rules_waits_until_it_is_separate(
    house: Harness, first: str, second: str
) -> None:
    """Whichever of the two rules comes first: the one that is watched already goes on."""
    if not can_mount():
        pytest.skip("mounting needs root and CAP_SYS_ADMIN")
    disk, name = house.root / "at" / "disk", house.root / "at" / "name"
    disk.mkdir(parents=True)
    house.inbox.rmdir()
    house.rule = {"name": first, "inbox": f"at/{first}", "rescan_interval": "100ms"}
    house.more_rules = [{**house.rule, "name": second, "inbox": f"at/{second}"}]
    process = DaemonProcess(house).start()
    await wait_until(watching_check(house, "disk"))
    house.drop_file("a.jpg", seed=1, inbox="at/disk")
    await wait_until(lambda: len(house.jobs(State.DONE)) == 1)
    bound = house.root / "bound"
    bound.mkdir()
    mount(bound, disk)
    # at once: a folder that was seen before the mount came would wait for `approve`
    name.symlink_to(bound)
    try:
        await wait_until(lambda: "would be paid twice" in unwatched_reason(house, "name"))
        assert str(disk) in unwatched_reason(house, "name")
        house.drop_file("b.jpg", seed=2, inbox="at/disk")
        await wait_until(lambda: len(house.jobs(State.DONE)) == 2)
        assert {job.rule for job in house.jobs()} == {"disk"}
    finally:
        unmount(bound)
    await wait_until(watching_check(house, "name"))
    own = house.drop_file("c.jpg", seed=3, inbox="at/name")
    await wait_until(lambda: len(house.jobs(State.DONE)) == 3)
    assert await process.stop() == 0
    assert house.job("c.jpg").source == Path(own)
    assert house.count_creates() == 3
