"""Mounts: which file system a path is on, by the kernel's mount table."""

import os
from pathlib import Path

import pytest

from picwish_watchd.fs import mounts
from picwish_watchd.fs.mounts import NETWORK_KINDS, Mount, mount_of
from tests.support.mounts import mount, temporary_mount, unmount

LINE = "{number} 1 0:{number} / {point} rw,relatime shared:1 - {kind} source rw\n"


def set_mount_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *lines: tuple[str, str]) -> None:
    """Replace the kernel's mount table by these mounts, in this order."""
    file = tmp_path / "mountinfo"
    text = "".join(LINE.format(number=n, point=point, kind=kind) for n, (point, kind) in enumerate(lines, 20))
    file.write_bytes(os.fsencode(text))
    monkeypatch.setattr(mounts, "MOUNTINFO", file)


def test_this_machines_own_table_is_understood() -> None:
    here = mount_of(Path("/proc/self"))
    assert here == Mount("/proc", "proc")
    assert mount_of(Path("/")) in mounts.read_mounts()


def test_the_nearest_mount_above_a_path_is_its_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_mount_table(tmp_path, monkeypatch, ("/", "ext4"), ("/srv", "xfs"), ("/srv/nas", "nfs4"))
    assert mount_of(Path("/etc")) == Mount("/", "ext4")
    assert mount_of(Path("/srv")) == Mount("/srv", "xfs")
    assert mount_of(Path("/srv/nasty/inbox")) == Mount("/srv", "xfs")
    assert mount_of(Path("/srv/nas/no/such/folder")) == Mount("/srv/nas", "nfs4")


def test_of_several_mounts_at_one_point_the_last_is_uppermost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_mount_table(tmp_path, monkeypatch, ("/", "ext4"), ("/nas", "autofs"), ("/nas", "cifs"))
    assert mount_of(Path("/nas/scans")) == Mount("/nas", "cifs")


def test_a_link_is_followed_to_where_it_leads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    set_mount_table(tmp_path, monkeypatch, ("/", "ext4"), (f"{tmp_path}/real", "smb3"))
    assert mount_of(tmp_path / "link" / "inbox") == Mount(f"{tmp_path}/real", "smb3")


@pytest.mark.parametrize(
    ("written", "point"),
    [
        (r"/my\040scans", "/my scans"),
        (r"/tab\011line\012back\134slash", "/tab\tline\nback\\slash"),
        (os.fsdecode(b"/caf\xe9"), os.fsdecode(b"/caf\xe9")),
        ("/form\ffeed\u2028line", "/form\ffeed\u2028line"),
    ],
)
def test_points_with_odd_names_are_read_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, point: str
) -> None:
    set_mount_table(tmp_path, monkeypatch, ("/", "ext4"), (written, "nfs"))
    assert mount_of(Path(point) / "a.jpg") == Mount(point, "nfs")


@pytest.mark.parametrize("kind", [*sorted(NETWORK_KINDS), "fuse.sshfs", "fuse.rclone", "fuse"])
def test_kinds_that_another_machine_may_change_are_of_the_network(kind: str) -> None:
    assert Mount("/nas", kind).is_network


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "fuseblk", "fuse.fuse-overlayfs"])
def test_kinds_of_this_machine_are_not_of_the_network(kind: str) -> None:
    assert not Mount("/disk", kind).is_network


def test_without_proc_no_mount_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "MOUNTINFO", tmp_path / "none")
    assert mounts.read_mounts() == []
    assert mount_of(Path("/")) is None


def test_lines_of_another_shape_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mountinfo"
    file.write_text("nonsense\n1 2 - ext4 x\n\n" + LINE.format(number=1, point="/", kind="ext4"), "utf-8")
    monkeypatch.setattr(mounts, "MOUNTINFO", file)
    assert mounts.read_mounts() == [Mount("/", "ext4")]


def test_a_folder_bound_onto_itself_belongs_to_the_mount_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mountinfo"
    lines = (
        "20 1 8:1 / / rw - ext4 disk rw\n"
        "21 20 0:50 / /srv rw - nfs4 nas:/x rw\n"
        # ReadWritePaths= makes such a mount.
        "22 21 0:50 / /srv/scans/out rw - nfs4 nas:/x/scans/out rw\n"
        "23 20 8:1 /data /mnt/data rw - ext4 disk rw\n"
    )
    file.write_text(lines)
    monkeypatch.setattr(mounts, "MOUNTINFO", file)
    assert mounts.canonical_mount_of(Path("/srv/scans/out/a")) == Mount("/srv", "nfs4")
    assert mounts.canonical_mount_of(Path("/mnt/data/a")) == Mount("/mnt/data", "ext4")


def test_separately_mounted_folders_of_one_nfs_server_are_distinguished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders on one disk of the server have the same device, and the kernel reports "/" as the root of each."""
    file = tmp_path / "mountinfo"
    file.write_text(
        "20 1 8:1 / / rw - ext4 disk rw\n"
        "21 20 0:50 / /mnt/in rw - nfs4 nas:/volume1/my\\040scans/in rw\n"
        "22 20 0:50 / /mnt/out rw - nfs4 nas:/volume1/my\\040scans/out rw\n"
        "23 20 0:50 / /mnt/all rw - nfs4 [fe80::1]:/volume1 rw\n"
    )
    monkeypatch.setattr(mounts, "MOUNTINFO", file)
    locations = mounts.device_locations(["/mnt/in", "/mnt/out", "/mnt/all/my scans/in", "/mnt/all"])
    assert not mounts.has_overlap(locations["/mnt/in"], locations["/mnt/out"])
    assert locations["/mnt/in"] == locations["/mnt/all/my scans/in"]
    assert mounts.has_overlap(locations["/mnt/in"], locations["/mnt/all"])


@pytest.mark.parametrize(
    ("point", "path", "concerned"),
    [
        ("/srv/nas", "/srv/nas", True),
        ("/srv/nas", "/srv/nas/in", True),
        ("/srv/nas/in/camera", "/srv/nas/in", True),
        ("/", "/srv/nas/in", True),
        ("/srv/nas", "/srv/nasty", False),
        ("/var/lib/docker/overlay2/0/merged", "/srv/nas/in", False),
    ],
)
def test_a_mount_concerns_its_mount_point_and_folders_above_and_below(point: str, path: str, concerned: bool) -> None:
    assert mounts.is_path_affected([point, "/elsewhere"], path) is concerned
    assert not mounts.is_path_affected([], path)


def test_changes_are_reported_once_by_their_mount_points(tmp_path: Path) -> None:
    with temporary_mount(tmp_path / "nas") as nas:
        changes = mounts.MountWatcher()
        assert changes.poll_changed_points() == frozenset()
        mount(nas)
        assert changes.poll_changed_points() >= {str(nas)}
        unmount(nas)
        unmount(nas)
        assert changes.poll_changed_points() >= {str(nas)}
        mount(nas)
        changes.poll_changed_points()
        mount(nas)
        unmount(nas)
        assert str(nas) not in changes.poll_changed_points()
        changes.close()
