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
_OCTAL = re.compile(r"\\([0-7]{3})")
_MOUNT_ID = re.compile(r"^mnt_id:\s*(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo: where it hangs and of what kind it is ("ext4", "nfs4", "fuse.sshfs")."""

    point: str
    kind: str
    device: str = field(default="", compare=False)  #: major:minor; another one after each restart for NFS and the like
    root: str = field(
        default="/", compare=False
    )  #: the folder of that file system, or of NFS's server, that hangs here
    number: int = field(default=0, compare=False)  #: the kernel's own, for as long as it hangs there

    @property
    def network(self) -> bool:
        """Whether another machine may change what lies there."""
        return self.kind in NETWORK_KINDS or (self.kind.startswith("fuse") and self.kind not in _LOCAL_FUSE)


class MountChanges:
    """What was mounted or unmounted, told by poll(2) on the kernel's table (proc(5): POLLPRI and POLLERR)."""

    def __init__(self) -> None:
        self._known: set[tuple[object, ...]] = set()
        self._poll = select.poll()
        self._fd: int | None = None
        try:
            self._fd = os.open(MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)
            self._poll.register(self._fd, select.POLLPRI | select.POLLERR)
            self._known = _traits()
        except OSError:  # no /proc, or none that can be polled: the walks notice in time
            self.close()

    def points(self) -> frozenset[str]:
        """Where something was mounted or unmounted since this was last asked, or made. Never blocks.

        What came and went in between, as container engines do by the minute, is no change.
        """
        if not self._poll.poll(0):
            return frozenset()
        before, self._known = self._known, _traits()
        return frozenset(str(point) for point, *_ in before ^ self._known)

    def close(self) -> None:
        """Lets go of the table."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def concern(points: Iterable[str], path: str) -> bool:
    """Whether one of these mount points is ``path``, or lies above or below it."""
    folder = path.rstrip("/") + "/"
    return any(folder.startswith(each) or each.startswith(folder) for each in (p.rstrip("/") + "/" for p in points))


def overlap(one: str, other: str) -> bool:
    """Whether two paths (or `locations`) are one, or one lies in the other."""
    longer, shorter = sorted((one.rstrip("/") + "/", other.rstrip("/") + "/"), key=len, reverse=True)
    return longer.startswith(shorter)


def mounts() -> list[Mount]:
    """All mounts of this process, in the kernel's order; empty where /proc is not to be had."""
    try:
        lines = MOUNTINFO.read_text("utf-8", "surrogateescape").split("\n")
    except OSError:
        return []
    return [mount for mount in map(_parse, lines) if mount is not None]


def mount_of(path: Path) -> Mount | None:
    """The mount that ``path`` lies on (it need not exist); of several at one point, the uppermost."""
    return _over(mounts(), os.path.realpath(path))


def home_of(path: Path) -> Mount | None:
    """The mount by which ``path`` is known again: `mount_of`, but one bound onto itself counts as not bound.

    systemd binds each entry of `ReadWritePaths=` onto itself in the service's own namespace: without this, a start by
    hand after one by systemd would find every folder on another mount.
    """
    table = mounts()
    return _unbound(_over(table, os.path.realpath(path)), table)


def _unbound(mount: Mount | None, table: list[Mount]) -> Mount | None:
    while mount is not None and mount.point != "/":
        point = mount.point
        above = _over([other for other in table if other.point != point], point)
        if above is None or above.device != mount.device:
            break
        if mount.root != os.path.normpath(os.path.join(above.root, os.path.relpath(point, above.point))):
            break
        mount = above
    return mount


def locations(real: Iterable[str]) -> dict[str, str]:
    """Where paths lie in their file systems: one place for all paths that mounts bind to it. Asks no mount, only /proc.

    ``real`` are paths without symbolic links; of two locations, one lies in the other if it begins with it and "/".
    """
    table = mounts()
    return {path: _location(path, table) for path in real}


def _location(real: str, table: list[Mount]) -> str:
    mount = _over(table, real)
    if mount is None:
        return real
    within = os.path.normpath(os.path.join(mount.root, os.path.relpath(real, mount.point)))
    return f"device {mount.device}:{within}"


def moved(path: Path, before: Mount | None) -> str | None:
    """Why ``path`` does not lie where it did ``before``, in words; None if it does, or if either is not known."""
    if before is not None:
        with suppress(OSError):  # stat(2) does not let autofs mount what it has put away, open(2) does
            os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    return None if before is None else _difference(home_of(path), before)


def strayed(folder: int, before: Mount | None) -> str | None:
    """The same for a folder that is open (its descriptor): what goes through that lands there, whatever comes or goes.

    None also where the kernel does not tell (``mnt_id`` in /proc/self/fdinfo, proc(5)); then `moved` is all there is.
    """
    number = None if before is None else _number_of(folder)
    table = [] if number is None else mounts()
    if before is None or not table:
        return None
    mount = next((each for each in table if each.number == number), None)
    if mount is None:
        return f"the {before.kind} mounted at {before.point}, which it lies on, is being unmounted"
    return _difference(_unbound(mount, table), before)


def _difference(now: Mount | None, before: Mount) -> str | None:
    if now is None or now == before:
        return None
    return (
        f"it lies on the {now.kind} mounted at {now.point}, and before on the {before.kind} mounted at {before.point}; "
        "mount that again, or accept this one with `picwish-watchd approve RULE`"
    )


def _number_of(fd: int) -> int | None:
    try:
        told = _MOUNT_ID.search((FDINFO / str(fd)).read_text("ascii"))
    except (OSError, ValueError):
        return None
    return int(told[1]) if told else None


def _traits() -> set[tuple[object, ...]]:
    return {(mount.point, mount.kind, mount.device, mount.root, mount.number) for mount in mounts()}


def _over(table: list[Mount], real: str) -> Mount | None:
    best: Mount | None = None
    for mount in table:
        inside = mount.point == "/" or real == mount.point or real.startswith(mount.point + "/")
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def _parse(line: str) -> Mount | None:
    left, separator, right = line.partition(" - ")
    fields = left.split(" ")
    if not separator or len(fields) < 6 or not fields[0].isdecimal():
        return None
    kind, source = (*right.split(" "), "")[:2]
    root = _unescaped(fields[3])
    if kind in ("nfs", "nfs4"):  # says "/" of each folder of a server, though they may share one device
        root = os.path.normpath("/" + _unescaped(source).partition(":/")[2])
    return Mount(_unescaped(fields[4]), kind, fields[2], root, int(fields[0]))


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text) if "\\" in text else text
