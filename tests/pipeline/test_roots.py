"""Inboxes that come and go while the daemon runs: paused with a reason, and taken up again; nothing is taken twice."""

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from picwish_watchd.job import State
from tests.support.house import House, Process, until
from tests.support.mounting import can_mount, mount, mounted, umount
from tests.support.pictures import picture

Act = Callable[[Path], object]


@dataclass(frozen=True)
class Root:
    """What happens to an inbox, what `status` says of it then, and what brings it back."""

    name: str
    go: Act
    reason: str | None
    come: Act
    mounted: bool = False  #: the inbox is a mount point from the beginning


def nothing(_: Path) -> None:
    """It comes, or is there, anyhow."""


def away(inbox: Path) -> Path:
    return inbox.with_name("away")


def become_a_link(inbox: Path, *, dangling: bool = False) -> None:
    inbox.rename(away(inbox))
    inbox.symlink_to("elsewhere")
    if not dangling:
        (inbox.parent / "elsewhere").mkdir()


def become_a_file(inbox: Path) -> None:
    inbox.rename(away(inbox))
    inbox.write_text("no folder")


def stop_being_a_file(inbox: Path) -> None:
    inbox.unlink()
    inbox.mkdir()


def lose(inbox: Path, *, lazily: bool = False) -> None:
    umount(inbox, lazily=lazily)
    (inbox / "below.jpg").write_bytes(picture("jpeg", seed=77))


def cover(inbox: Path) -> None:
    mount(inbox)
    (inbox / "below.jpg").write_bytes(picture("jpeg", seed=77))


def remount(inbox: Path) -> None:
    mount(inbox, inbox.parent / "disk")


NONE, OTHER = "No such file or directory", "mount that again, or accept this one"

ROOTS = (
    Root("missing", nothing, NONE, Path.mkdir),
    Root("deleted", shutil.rmtree, NONE, Path.mkdir),
    Root("renamed", lambda inbox: inbox.rename(away(inbox)), NONE, Path.mkdir),
    Root("back", lambda inbox: inbox.rename(away(inbox)), NONE, lambda inbox: away(inbox).rename(inbox)),
    Root("parent", lambda inbox: inbox.parent.rename(inbox.parent.with_name("gone")), NONE, os.makedirs),
    Root("link", become_a_link, None, nothing),
    Root("dangling", lambda inbox: become_a_link(inbox, dangling=True), NONE,
         lambda inbox: (inbox.parent / "elsewhere").mkdir()),
    Root("file", become_a_file, "Not a directory", stop_being_a_file),
    Root("locked", lambda inbox: inbox.chmod(0), "Permission denied", lambda inbox: inbox.chmod(0o755)),
    Root("unmounted", lose, OTHER, remount, mounted=True),
    Root("lazily", lambda inbox: lose(inbox, lazily=True), OTHER, remount, mounted=True),
    Root("covered", cover, OTHER, umount, mounted=True),
    Root("above", lambda inbox: mount(inbox.parent), NONE, lambda inbox: umount(inbox.parent), mounted=True),
)  # fmt: skip


def without_rights() -> tuple[str, ...] | None:
    """How to run a command without the rights of root, still as the owner of all that is here; None: not to be had."""
    if os.geteuid() != 0:
        return ()
    command = ("unshare", "--user")
    return command if subprocess.run([*command, "true"], check=False, capture_output=True).returncode == 0 else None


async def test_roots_that_come_and_go_pause_their_own_rules_with_a_reason_and_are_taken_up_again(house: House) -> None:
    plain = without_rights()
    mounting = can_mount()
    roots = [r for r in ROOTS if (mounting or not r.mounted) and (plain is not None or r.name != "locked")]
    folders = {root.name: house.root / root.name / "in" for root in roots}
    house.rule = {"rescan_interval": "500ms"}  # fourteen inboxes, each walked ten times a second, keep a core busy
    house.more_rules = [{"name": root.name, "inbox": f"{root.name}/in", **house.rule} for root in roots]
    with ExitStack() as stack:
        for number, root in enumerate(roots):
            folder = folders[root.name]
            folder.parent.mkdir()
            if root.mounted:
                (folder.parent / "disk").mkdir()
                stack.enter_context(mounted(folder, folder.parent / "disk"))
            elif root.name != "missing":
                folder.mkdir()
            if folder.exists():
                (folder / f"{root.name} before.jpg").write_bytes(picture("jpeg", seed=number))
        process = Process(house, prefix=plain or ()).start()
        await until(lambda: house.journal.exists() and len(house.jobs(State.DONE)) == len(roots) - 1)
        for root in roots:
            root.go(folders[root.name])
        reasons = [root.reason for root in roots if root.reason]
        for reason, times in Counter(reasons).items():
            await until(lambda reason=reason, times=times: house.report().count(reason) == times)
        house.drop("meanwhile.jpg", seed=98)
        await until(lambda: len(house.jobs(State.DONE)) == len(roots))
        for number, root in enumerate(roots):
            root.come(folders[root.name])
            (folders[root.name] / f"{root.name} after.jpg").write_bytes(picture("jpeg", seed=100 + number))
        await until(lambda: len(house.jobs(State.DONE)) == 2 * len(roots))
        await until(lambda: '"watching": false' not in house.report())
        assert await process.stop() == 0
    names = [str(job.relative) for job in house.jobs()]
    expected = {f"{root.name} {when}.jpg" for root in roots for when in ("before", "after")} - {"missing before.jpg"}
    assert sorted(names) == sorted({*expected, "meanwhile.jpg"})
    assert house.creates() == len(names)
    told = Counter(line["rule"] for line in process.log() if line["event"] == "inbox.away")
    assert told == {root.name: 1 for root in roots if root.reason}
