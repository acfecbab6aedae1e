"""Links in an inbox, where they are to be followed: into no folder that results are put into, into none twice."""

import asyncio

from picwish_watchd.daemon.daemon import Daemon
from picwish_watchd.job import State
from tests.support.house import KEY, House, Process, until
from tests.support.pictures import picture


async def test_a_link_is_not_followed_into_the_outbox_of_a_rule_that_came_with_a_reload(house: House) -> None:
    house.rule = {"follow_symlinks": True, "rescan_interval": "100ms"}
    (house.root / "inbox2").mkdir()
    (house.root / "shown").mkdir()
    (house.inbox / "shown").symlink_to("../shown")
    daemon = Daemon(house.config(), KEY, reload=lambda: (house.config(), KEY))
    running = asyncio.create_task(daemon.run())
    await until(lambda: '"watching": true' in house.report())
    house.more_rules = [{"name": "others", "inbox": "inbox2", "outbox": "shown"}]
    daemon.reload()
    (house.root / "shown" / "theirs.jpg").write_bytes(picture("jpeg", seed=1))
    house.drop("ours.jpg", seed=2)
    await until(lambda: bool(house.jobs(State.DONE)))
    [desk] = [desk for desk in daemon.desks.all() if desk.rule.name == "scans"]
    before = desk.heard
    await until(lambda: desk.heard > before)
    daemon.stop()
    await running
    assert [str(job.relative) for job in house.jobs()] == ["ours.jpg"]


async def test_a_picture_that_links_lead_to_by_several_paths_is_taken_once_and_that_is_told(house: House) -> None:
    house.rule = {"follow_symlinks": True}
    house.drop("jobs/a.jpg")
    for name in ("2026", "latest", "today"):
        (house.inbox / name).symlink_to("jobs")
    process = Process(house, ("--once",)).start()
    assert await process.ended() == 0
    [told] = [line for line in process.log() if line["event"] == "link.not_entered"]
    assert (told["path"], told["number"]) == (str(house.inbox / "2026"), 3)
    assert [str(job.relative) for job in house.jobs()] == ["jobs/a.jpg"]
    assert house.results() == {"jobs/a.jpg"}
