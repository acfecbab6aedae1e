"""Followed links in an inbox: none leads into a folder with results, and no folder is scanned twice."""

import asyncio

from picwish_watchd.daemon.daemon import Daemon
from picwish_watchd.job import State
from tests.support.harness import KEY, DaemonProcess, Harness, wait_until
from tests.support.sample_images import make_image


async def test_a_link_into_the_outbox_of_a_reloaded_rule_is_not_followed(harness: Harness) -> None:
    harness.rule = {"follow_symlinks": True, "rescan_interval": "100ms"}
    (harness.root / "inbox2").mkdir()
    (harness.root / "shown").mkdir()
    (harness.inbox / "shown").symlink_to("../shown")
    daemon = Daemon(harness.load_config(), KEY, reload=lambda: (harness.load_config(), KEY))
    running = asyncio.create_task(daemon.run())
    await wait_until(lambda: '"watching": true' in harness.daemon_report())
    harness.more_rules = [{"name": "others", "inbox": "inbox2", "outbox": "shown"}]
    daemon.reload()
    (harness.root / "shown" / "theirs.jpg").write_bytes(make_image("jpeg", seed=1))
    harness.drop_file("ours.jpg", seed=2)
    await wait_until(lambda: bool(harness.jobs(State.DONE)))
    [inbox] = [inbox for inbox in daemon.services.inboxes.list_active() if inbox.rule.name == "scans"]
    before = inbox.last_scan_at
    await wait_until(lambda: inbox.last_scan_at > before)
    daemon.stop()
    await running
    assert [str(job.relative) for job in harness.jobs()] == ["ours.jpg"]


async def test_an_image_reachable_by_several_links_is_taken_once_and_logged(harness: Harness) -> None:
    harness.rule = {"follow_symlinks": True}
    harness.drop_file("jobs/a.jpg")
    for name in ("2026", "latest", "today"):
        (harness.inbox / name).symlink_to("jobs")
    process = DaemonProcess(harness, ("--once",)).start()
    assert await process.wait_for_exit() == 0
    [event] = [line for line in process.logged_events() if line["event"] == "link.not_entered"]
    assert (event["path"], event["number"]) == (str(harness.inbox / "2026"), 3)
    assert [str(job.relative) for job in harness.jobs()] == ["jobs/a.jpg"]
    assert harness.results() == {"jobs/a.jpg"}
