"""Which file system a path lies on, read from ``/proc/self/mountinfo`` (proc(5))."""

import os
import re
import select
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

MOUNTINFO = Path("/proc/self/mountinfo")
FDINFO = Path("/proc/self/fdinfo")

#: Kinds whose changes the kernel does not see when another machine makes them, and on which SQLite's WAL is not
#: safe (sqlite.org/wal.html: "WAL does not work over a network filesystem"). FUSE kinds are judged by prefix.
NETWORK_KINDS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "virtiofs"})
_LOCAL_FUSE = frozenset({"fuse.fuse-overlayfs", "fuse.overlayfs", "fuseblk"})
_OCTAL_ESCAPE = re.compile(r"\\([0-7]{3})")
_MOUNT_ID = re.compile(r"^mnt_id:\s*(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo: where it hangs and of what kind it is ("ext4", "nfs4", "fuse.sshfs")."""

    point: str
    kind: str
    #: major:minor; another one after each restart for NFS and the like
    device: str = field(default="", compare=False)
    root: str = field(
        default="/",
        compare=False,
        #: the folder of that file system, or of NFS's server, that hangs here
    )
    #: the kernel's own, for as long as it hangs there
    mount_id: int = field(default=0, compare=False)

    @property
    def is_network(self) -> bool:
        """Whether another machine may change what lies there."""
        return self.kind in NETWORK_KINDS or (self.kind.startswith("fuse") and self.kind not in _LOCAL_FUSE)


class MountWatcher:
    """What was mounted or unmounted, told by poll(2) on the kernel's table (proc(5): POLLPRI and POLLERR)."""

    def __init__(self) -> None:
        self._snapshot: set[tuple[object, ...]] = set()
        self._poll = select.poll()
        self._fd: int | None = None
        try:
            self._fd = os.open(MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)
            self._poll.register(self._fd, select.POLLPRI | select.POLLERR)
            self._snapshot = _snapshot_mounts()
        except OSError:
            # no /proc, or none that can be polled: the walks notice in time
            self.close()

    def poll_changed_points(self) -> frozenset[str]:
        """Where something was mounted or unmounted since this was last asked, or made. Never blocks.

        What came and went in between, as container engines do by the minute, is no change.
        """
        if not self._poll.poll(0):
            return frozenset()
        before, self._snapshot = self._snapshot, _snapshot_mounts()
        return frozenset(str(point) for point, *_ in before ^ self._snapshot)

    def close(self) -> None:
        """Lets go of the table."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def is_path_affected(points: Iterable[str], path: str) -> bool:
    """Whether one of these mount points is ``path``, or lies above or below it."""
    folder = path.rstrip("/") + "/"
    return any(folder.startswith(each) or each.startswith(folder) for each in (p.rstrip("/") + "/" for p in points))


def has_overlap(one: str, other: str) -> bool:
    """Whether two paths (or `locations`) are one, or one lies in the other."""
    longer, shorter = sorted((one.rstrip("/") + "/", other.rstrip("/") + "/"), key=len, reverse=True)
    return longer.startswith(shorter)


def read_mounts() -> list[Mount]:
    """All mounts of this process, in the kernel's order; empty where /proc is not to be had."""
    try:
        lines = MOUNTINFO.read_text("utf-8", "surrogateescape").split("\n")
    except OSError:
        return []
    return [mount for mount in map(_parse_mountinfo_line, lines) if mount is not None]


def mount_of(path: Path) -> Mount | None:
    """The mount that ``path`` lies on (it need not exist); of several at one point, the uppermost."""
    return _find_mount(read_mounts(), os.path.realpath(path))


def canonical_mount_of(path: Path) -> Mount | None:
    """The mount by which ``path`` is known again: `mount_of`, but one bound onto itself counts as not bound.

    systemd binds each entry of `ReadWritePaths=` onto itself in the service's own namespace: without this, a start by
    hand after one by systemd would find every folder on another mount.
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
    """Where paths lie in their file systems: one place for all paths that mounts bind to it. Asks no mount, only /proc.

    ``real`` are paths without symbolic links; of two locations, one lies in the other if it begins with it and "/".
    """
    table = read_mounts()
    return {path: _device_location(path, table) for path in real}


def _device_location(real: str, table: list[Mount]) -> str:
    mount = _find_mount(table, real)
    if mount is None:
        return real
    within = os.path.normpath(os.path.join(mount.root, os.path.relpath(real, mount.point)))
    return f"device {mount.device}:{within}"


def detect_mount_change(path: Path, before: Mount | None) -> str | None:
    """Why ``path`` does not lie where it did ``before``, in words; None if it does, or if either is not known."""
    if before is not None:
        # stat(2) does not let autofs mount what it has put away, open(2) does
        with suppress(OSError):
            os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    return None if before is None else _compare_mounts(canonical_mount_of(path), before)


def detect_fd_mount_change(folder: int, before: Mount | None) -> str | None:
    """The same for a folder that is open (its descriptor): what goes through that lands there, whatever comes or goes.

    None also where the kernel does not tell (``mnt_id`` in /proc/self/fdinfo, proc(5)); then `moved` is all there is.
    """
    number = None if before is None else _mount_id_of(folder)
    table = [] if number is None else read_mounts()
    if before is None or not table:
        return None
    mount = next((each for each in table if each.mount_id == number), None)
    if mount is None:
        return f"the {before.kind} mounted at {before.point}, which it lies on, is being unmounted"
    return _compare_mounts(_skip_self_binds(mount, table), before)


def _compare_mounts(now: Mount | None, before: Mount) -> str | None:
    if now is None or now == before:
        return None
    return (
        f"it lies on the {now.kind} mounted at {now.point}, and before on the {before.kind} mounted at {before.point}; "
        "mount that again, or accept this one with `picwish-watchd approve RULE`"
    )


def _mount_id_of(fd: int) -> int | None:
    try:
        told = _MOUNT_ID.search((FDINFO / str(fd)).read_text("ascii"))
    except (OSError, ValueError):
        return None
    return int(told[1]) if told else None


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
    # says "/" of each folder of a server, though they may share one device
    if kind in ("nfs", "nfs4"):
        root = os.path.normpath("/" + _unescape_octal(source).partition(":/")[2])
    return Mount(_unescape_octal(fields[4]), kind, fields[2], root, int(fields[0]))


def _unescape_octal(text: str) -> str:
    return _OCTAL_ESCAPE.sub(lambda match: chr(int(match[1], 8)), text) if "\\" in text else text
