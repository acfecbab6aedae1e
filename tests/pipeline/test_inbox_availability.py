"""Inboxes that become unavailable are paused with a reason and resumed, and no file is taken twice."""

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from picwish_watchd.job import State
from tests.support.harness import DaemonProcess, Harness, wait_until
from tests.support.mounts import can_mount, mount, temporary_mount, unmount
from tests.support.sample_images import make_image

FolderAction = Callable[[Path], object]


@dataclass(frozen=True)
class InboxCase:
    """A change of an inbox, its reason in `status`, and how to undo the change."""

    name: str
    remove: FolderAction
    reason: str | None
    restore: FolderAction
    #: The inbox is a mount point from the start.
    mounted: bool = False


def do_nothing(_: Path) -> None:
    """Change nothing."""


def move_away(inbox: Path) -> Path:
    return inbox.with_name("away")


def replace_with_link(inbox: Path, *, dangling: bool = False) -> None:
    inbox.rename(move_away(inbox))
    inbox.symlink_to("elsewhere")
    if not dangling:
        (inbox.parent / "elsewhere").mkdir()


def replace_with_file(inbox: Path) -> None:
    inbox.rename(move_away(inbox))
    inbox.write_text("no folder")


def replace_file_with_folder(inbox: Path) -> None:
    inbox.unlink()
    inbox.mkdir()


def unmount_inbox(inbox: Path, *, lazily: bool = False) -> None:
    unmount(inbox, lazily=lazily)
    (inbox / "below.jpg").write_bytes(make_image("jpeg", seed=77))


def mount_over(inbox: Path) -> None:
    mount(inbox)
    (inbox / "below.jpg").write_bytes(make_image("jpeg", seed=77))


def remount(inbox: Path) -> None:
    mount(inbox, inbox.parent / "disk")


NONE, OTHER = "No such file or directory", "mount that again, or accept this one"

INBOX_CASES = (
    InboxCase("missing", do_nothing, NONE, Path.mkdir),
    InboxCase("deleted", shutil.rmtree, NONE, Path.mkdir),
    InboxCase("renamed", lambda inbox: inbox.rename(move_away(inbox)), NONE, Path.mkdir),
    InboxCase("back", lambda inbox: inbox.rename(move_away(inbox)), NONE, lambda inbox: move_away(inbox).rename(inbox)),
    InboxCase("parent", lambda inbox: inbox.parent.rename(inbox.parent.with_name("gone")), NONE, os.makedirs),
    InboxCase("link", replace_with_link, None, do_nothing),
    InboxCase(
        "dangling",
        lambda inbox: replace_with_link(inbox, dangling=True),
        NONE,
        lambda inbox: (inbox.parent / "elsewhere").mkdir(),
    ),
    InboxCase("file", replace_with_file, "Not a directory", replace_file_with_folder),
    InboxCase("locked", lambda inbox: inbox.chmod(0), "Permission denied", lambda inbox: inbox.chmod(0o755)),
    InboxCase("unmounted", unmount_inbox, OTHER, remount, mounted=True),
    InboxCase("lazily", lambda inbox: unmount_inbox(inbox, lazily=True), OTHER, remount, mounted=True),
    InboxCase("covered", mount_over, OTHER, unmount, mounted=True),
    InboxCase("above", lambda inbox: mount(inbox.parent), NONE, lambda inbox: unmount(inbox.parent), mounted=True),
)


def unprivileged_command() -> tuple[str, ...] | None:
    """Return a command prefix that drops root's rights but keeps the owner, or None where that is impossible."""
    if os.geteuid() != 0:
        return ()
    command = ("unshare", "--user")
    return command if subprocess.run([*command, "true"], check=False, capture_output=True).returncode == 0 else None


async def test_a_lost_inbox_pauses_its_rule_with_a_reason_until_it_returns(harness: Harness) -> None:
    plain = unprivileged_command()
    mounting = can_mount()
    roots = [r for r in INBOX_CASES if (mounting or not r.mounted) and (plain is not None or r.name != "locked")]
    folders = {root.name: harness.root / root.name / "in" for root in roots}
    # Scanning fourteen inboxes ten times a second would keep a core busy.
    harness.rule = {"rescan_interval": "500ms"}
    harness.more_rules = [{"name": root.name, "inbox": f"{root.name}/in", **harness.rule} for root in roots]
    with ExitStack() as stack:
        for number, root in enumerate(roots):
            folder = folders[root.name]
            folder.parent.mkdir()
            if root.mounted:
                (folder.parent / "disk").mkdir()
                stack.enter_context(temporary_mount(folder, folder.parent / "disk"))
            elif root.name != "missing":
                folder.mkdir()
            if folder.exists():
                (folder / f"{root.name} before.jpg").write_bytes(make_image("jpeg", seed=number))
        process = DaemonProcess(harness, prefix=plain or ()).start()
        await wait_until(lambda: harness.journal.exists() and len(harness.jobs(State.DONE)) == len(roots) - 1)
        for root in roots:
            root.remove(folders[root.name])
        reasons = [root.reason for root in roots if root.reason]
        for reason, times in Counter(reasons).items():
            await wait_until(lambda reason=reason, times=times: harness.daemon_report().count(reason) == times)
        harness.drop_file("meanwhile.jpg", seed=98)
        await wait_until(lambda: len(harness.jobs(State.DONE)) == len(roots))
        for number, root in enumerate(roots):
            root.restore(folders[root.name])
            (folders[root.name] / f"{root.name} after.jpg").write_bytes(make_image("jpeg", seed=100 + number))
        await wait_until(lambda: len(harness.jobs(State.DONE)) == 2 * len(roots))
        await wait_until(lambda: '"watching": false' not in harness.daemon_report())
        assert await process.stop() == 0
    names = [str(job.relative) for job in harness.jobs()]
    expected = {f"{root.name} {when}.jpg" for root in roots for when in ("before", "after")} - {"missing before.jpg"}
    assert sorted(names) == sorted({*expected, "meanwhile.jpg"})
    assert harness.count_creates() == len(names)
    events = Counter(line["rule"] for line in process.logged_events() if line["event"] == "inbox.away")
    assert events == {root.name: 1 for root in roots if root.reason}
