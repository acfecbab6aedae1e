"""Two inboxes that a mount turns into one while the daemon runs: no image is paid by both rules."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from picwish_watchd.job import State
from tests.support.harness import DaemonProcess, Harness, wait_until
from tests.support.mounts import can_mount, mount, unmount


def unwatched_reason(harness: Harness, rule: str) -> str:
    """Return the reason in `status` why the rule is not watched."""
    rules = json.loads(harness.daemon_report() or "{}").get("rules", {})
    return str(rules.get(rule, {}).get("reason") or "")


def watching_check(harness: Harness, rule: str) -> Callable[[], bool]:
    return lambda: bool(json.loads(harness.daemon_report() or "{}").get("rules", {}).get(rule, {}).get("watching"))


@pytest.mark.parametrize(("first", "second"), [("disk", "name"), ("name", "disk")])
async def test_an_inbox_mounted_onto_another_rules_waits_until_it_is_separate(
    harness: Harness, first: str, second: str
) -> None:
    """Of the two rules, the one that is already watched goes on, in either order."""
    if not can_mount():
        pytest.skip("mounting needs root and CAP_SYS_ADMIN")
    disk, name = harness.root / "at" / "disk", harness.root / "at" / "name"
    disk.mkdir(parents=True)
    harness.inbox.rmdir()
    harness.rule = {"name": first, "inbox": f"at/{first}", "rescan_interval": "100ms"}
    harness.more_rules = [{**harness.rule, "name": second, "inbox": f"at/{second}"}]
    process = DaemonProcess(harness).start()
    await wait_until(watching_check(harness, "disk"))
    harness.drop_file("a.jpg", seed=1, inbox="at/disk")
    await wait_until(lambda: len(harness.jobs(State.DONE)) == 1)
    bound = harness.root / "bound"
    bound.mkdir()
    mount(bound, disk)
    # A folder that was seen before the mount would wait for `approve`.
    name.symlink_to(bound)
    try:
        await wait_until(lambda: "would be paid twice" in unwatched_reason(harness, "name"))
        assert str(disk) in unwatched_reason(harness, "name")
        harness.drop_file("b.jpg", seed=2, inbox="at/disk")
        await wait_until(lambda: len(harness.jobs(State.DONE)) == 2)
        assert {job.rule for job in harness.jobs()} == {"disk"}
    finally:
        unmount(bound)
    await wait_until(watching_check(harness, "name"))
    own = harness.drop_file("c.jpg", seed=3, inbox="at/name")
    await wait_until(lambda: len(harness.jobs(State.DONE)) == 3)
    assert await process.stop() == 0
    assert harness.job("c.jpg").source == Path(own)
    assert harness.count_creates() == 3
