"""Read which file system a path is on from ``/proc/self/mountinfo`` (proc(5)), and notice when that changes."""

import os
import re
import select
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")
FDINFO = Path("/proc/self/fdinfo")

#: Kinds of file systems that another machine may change without this kernel seeing it, and on which SQLite's WAL is
#: not safe (sqlite.org/wal.html: "WAL does not work over a network filesystem"). FUSE kinds are recognised by prefix.
NETWORK_KINDS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "virtiofs"})
_LOCAL_FUSE = frozenset({"fuse.fuse-overlayfs", "fuse.overlayfs", "fuseblk"})
_OCTAL_ESCAPE = re.compile(r"\\([0-7]{3})")
_MOUNT_ID = re.compile(r"^mnt_id:\s*(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo: the mount point and the kind of file system ("ext4", "nfs4", "fuse.sshfs").

    Two mounts are equal if both of these are: the other fields differ after each restart.
    """

    point: str
    kind: str
    #: "major:minor"
    device: str = field(default="", compare=False)
    #: The folder of that file system, or of the NFS server, that is mounted here.
    root: str = field(default="/", compare=False)
    #: The kernel's number of this mount, valid until it is unmounted.
    mount_id: int = field(default=0, compare=False)

    @property
    def is_network(self) -> bool:
        """Whether another machine may change files on it without this kernel seeing it."""
        return self.kind in NETWORK_KINDS or (self.kind.startswith("fuse") and self.kind not in _LOCAL_FUSE)


@dataclass(frozen=True, slots=True)
class MountChanged:
    """A folder is on another mount than before. ``now`` is None while its mount is being unmounted."""

    now: Mount | None
    before: Mount

    def describe(self, rule: str) -> str:
        """Return what has changed and what to do about it; ``rule`` is the rule that the folder belongs to."""
        if self.now is None:
            return f"the {self.before.kind} mounted at {self.before.point}, which it is on, is being unmounted"
        return (
            f"it is on the {self.now.kind} mounted at {self.now.point}, and was on the {self.before.kind} mounted at "
            f"{self.before.point} before; mount that again, or accept this one with `picwish-watchd approve {rule}`"
        )


@dataclass(frozen=True, slots=True)
class AcceptedMount:
    """The mount that a folder of ``rule`` was last accepted on; ``mount`` is None while none is recorded."""

    rule: str
    mount: Mount | None

    def why_elsewhere(self, path: Path) -> str | None:
        """Return why ``path`` is not on this mount, in words; None if it is, or if that is not known."""
        change = detect_mount_change(path, self.mount)
        return None if change is None else change.describe(self.rule)

    def why_open_folder_elsewhere(self, folder: int) -> str | None:
        """Return why the open ``folder`` (a descriptor) is not on this mount; see `detect_fd_mount_change`."""
        change = detect_fd_mount_change(folder, self.mount)
        return None if change is None else change.describe(self.rule)


class MountWatcher:
    """Report mounts and unmounts, by poll(2) on the kernel's table (proc(5): POLLPRI and POLLERR)."""

    def __init__(self) -> None:
        self._snapshot: set[tuple[object, ...]] = set()
        self._poll = select.poll()
        self._fd: int | None = None
        try:
            self._fd = os.open(MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)
            self._poll.register(self._fd, select.POLLPRI | select.POLLERR)
            self._snapshot = _snapshot_mounts()
        except OSError:
            # There is no /proc, or it cannot be polled. The periodic scans notice changes in time.
            self.close()

    def poll_changed_points(self) -> frozenset[str]:
        """Return where something was mounted or unmounted since the last call, or since construction. Never blocks.

        A mount that came and went in between is not reported: container engines do that every minute.
        """
        if not self._poll.poll(0):
            return frozenset()
        before, self._snapshot = self._snapshot, _snapshot_mounts()
        return frozenset(str(point) for point, *_ in before ^ self._snapshot)

    def close(self) -> None:
        """Close the kernel's table. May be called twice."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def is_path_affected(points: Iterable[str], path: str) -> bool:
    """Return whether one of these mount points is ``path``, or is above or below it."""
    folder = path.rstrip("/") + "/"
    return any(folder.startswith(each) or each.startswith(folder) for each in (p.rstrip("/") + "/" for p in points))


def has_overlap(one: str, other: str) -> bool:
    """Return whether two paths (or `device_locations`) are equal, or one is inside the other."""
    longer, shorter = sorted((one.rstrip("/") + "/", other.rstrip("/") + "/"), key=len, reverse=True)
    return longer.startswith(shorter)


def read_mounts() -> list[Mount]:
    """Return all mounts of this process in the kernel's order; an empty list where /proc cannot be read."""
    try:
        lines = MOUNTINFO.read_text("utf-8", "surrogateescape").split("\n")
    except OSError:
        return []
    return [mount for mount in map(_parse_mountinfo_line, lines) if mount is not None]


def mount_of(path: Path) -> Mount | None:
    """Return the mount that ``path`` is on (it need not exist); of several at one point, the uppermost."""
    return _find_mount(read_mounts(), os.path.realpath(path))


def canonical_mount_of(path: Path) -> Mount | None:
    """Return the mount by which ``path`` is recognised later: `mount_of`, without folders bound onto themselves.

    systemd binds each entry of `ReadWritePaths=` onto itself in the service's own namespace. If those counted, a start
    by hand after one by systemd would find every folder on another mount.
    """
    table = read_mounts()
    return _skip_self_binds(_find_mount(table, os.path.realpath(path)), table)


def _skip_self_binds(mount: Mount | None, table: list[Mount]) -> Mount | None:
    while mount is not None and mount.point != "/":
        point = mount.point
        above = _find_mount([other for other in table if other.point != point], point)
        if above is None or above.device != mount.device:
            break
        if mount.root != os.path.normpath(os.path.join(above.root, os.path.relpath(point, above.point))):
            break
        mount = above
    return mount


def device_locations(real: Iterable[str]) -> dict[str, str]:
    """Return the location of each path in its file system: equal for all paths that bind mounts give one folder.

    ``real`` are paths without symbolic links. Only /proc is read, so no mount can hang here. One location is inside
    another if it begins with that one and "/".
    """
    table = read_mounts()
    return {path: _device_location(path, table) for path in real}


def _device_location(real: str, table: list[Mount]) -> str:
    mount = _find_mount(table, real)
    if mount is None:
        return real
    within = os.path.normpath(os.path.join(mount.root, os.path.relpath(real, mount.point)))
    return f"device {mount.device}:{within}"


def detect_mount_change(path: Path, before: Mount | None) -> MountChanged | None:
    """Return the change if ``path`` is not on the mount ``before``; None if it is, or if either is not known."""
    if before is None:
        return None
    # stat(2) does not make autofs mount again what it has unmounted when idle; open(2) does.
    with suppress(OSError):
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    return _compare_mounts(canonical_mount_of(path), before)


def detect_fd_mount_change(folder: int, before: Mount | None) -> MountChanged | None:
    """Return the change if the open ``folder`` (a descriptor) is not on the mount ``before``.

    Files made through the descriptor land on that mount, even if another is mounted over the path afterwards. None
    also where the kernel does not give the number (``mnt_id`` in /proc/self/fdinfo, proc(5)); then only
    `detect_mount_change` can be relied on.
    """
    number = None if before is None else _mount_id_of(folder)
    table = [] if number is None else read_mounts()
    if before is None or not table:
        return None
    mount = next((each for each in table if each.mount_id == number), None)
    if mount is None:
        return MountChanged(None, before)
    return _compare_mounts(_skip_self_binds(mount, table), before)


def _compare_mounts(now: Mount | None, before: Mount) -> MountChanged | None:
    return None if now is None or now == before else MountChanged(now, before)


def _mount_id_of(fd: int) -> int | None:
    try:
        match = _MOUNT_ID.search((FDINFO / str(fd)).read_text("ascii"))
    except (OSError, ValueError):
        return None
    return int(match[1]) if match else None


def _snapshot_mounts() -> set[tuple[object, ...]]:
    return {(mount.point, mount.kind, mount.device, mount.root, mount.mount_id) for mount in read_mounts()}


def _find_mount(table: list[Mount], real: str) -> Mount | None:
    best: Mount | None = None
    for mount in table:
        inside = mount.point == "/" or real == mount.point or real.startswith(mount.point + "/")
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def _parse_mountinfo_line(line: str) -> Mount | None:
    left, separator, right = line.partition(" - ")
    fields = left.split(" ")
    if not separator or len(fields) < 6 or not fields[0].isdecimal():
        return None
    kind, source = (*right.split(" "), "")[:2]
    root = _unescape_octal(fields[3])
    # For NFS the kernel gives "/" as the root of each exported folder, though several may share one device.
    if kind in ("nfs", "nfs4"):
        root = os.path.normpath("/" + _unescape_octal(source).partition(":/")[2])
    return Mount(_unescape_octal(fields[4]), kind, fields[2], root, int(fields[0]))


def _unescape_octal(text: str) -> str:
    return _OCTAL_ESCAPE.sub(lambda match: chr(int(match[1], 8)), text) if "\\" in text else text
