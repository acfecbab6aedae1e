"""Links in an inbox, where they are to be followed: into no folder that results are put into, into none twice."""

import asyncio

from picwish_watchd.daemon.daemon import Daemon
from picwish_watchd.job import State
from tests.support.house import KEY, DaemonProcess, Harness, wait_until
from tests.support.pictures import make_image


async def test_a_link_into_the_outbox_of_a_reloaded_rule_is_not_followed(house: Harness) -> None:
    house.rule = {"follow_symlinks": True, "rescan_interval": "100ms"}
    (house.root / "inbox2").mkdir()
    (house.root / "shown").mkdir()
    (house.inbox / "shown").symlink_to("../shown")
    daemon = Daemon(house.load_config(), KEY, reload=lambda: (house.load_config(), KEY))
    running = asyncio.create_task(daemon.run())
    await wait_until(lambda: '"watching": true' in house.daemon_report())
    house.more_rules = [{"name": "others", "inbox": "inbox2", "outbox": "shown"}]
    daemon.reload()
    (house.root / "shown" / "theirs.jpg").write_bytes(make_image("jpeg", seed=1))
    house.drop_file("ours.jpg", seed=2)
    await wait_until(lambda: bool(house.jobs(State.DONE)))
    [desk] = [desk for desk in daemon.desks.list_active() if desk.rule.name == "scans"]
    before = desk.last_scan_at
    await wait_until(lambda: desk.last_scan_at > before)
    daemon.stop()
    await running
    assert [str(job.relative) for job in house.jobs()] == ["ours.jpg"]


async def test_an_image_reachable_by_several_links_is_taken_once_and_logged(house: Harness) -> None:
    house.rule = {"follow_symlinks": True}
    house.drop_file("jobs/a.jpg")
    for name in ("2026", "latest", "today"):
        (house.inbox / name).symlink_to("jobs")
    process = DaemonProcess(house, ("--once",)).start()
    assert await process.wait_for_exit() == 0
    [told] = [line for line in process.logged_events() if line["event"] == "link.not_entered"]
    assert (told["path"], told["number"]) == (str(house.inbox / "2026"), 3)
    assert [str(job.relative) for job in house.jobs()] == ["jobs/a.jpg"]
    assert house.results() == {"jobs/a.jpg"}
