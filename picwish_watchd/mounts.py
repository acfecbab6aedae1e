"""Which file system a path lies on, read from ``/proc/self/mountinfo`` (proc(5))."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")

#: Kinds whose changes the kernel does not see when another machine makes them, and on which SQLite's WAL is not
#: safe (sqlite.org/wal.html: "WAL does not work over a network filesystem"). FUSE kinds are judged by prefix.
NETWORK_KINDS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "virtiofs"})
_LOCAL_FUSE = frozenset({"fuse.fuse-overlayfs", "fuse.overlayfs", "fuseblk"})
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo: where it hangs and of what kind it is ("ext4", "nfs4", "fuse.sshfs")."""

    point: str
    kind: str

    @property
    def network(self) -> bool:
        """Whether another machine may change what lies there."""
        return self.kind in NETWORK_KINDS or (self.kind.startswith("fuse") and self.kind not in _LOCAL_FUSE)


def mounts() -> list[Mount]:
    """All mounts of this process, in the kernel's order; empty where /proc is not to be had."""
    try:
        lines = MOUNTINFO.read_text("utf-8", "surrogateescape").split("\n")
    except OSError:
        return []
    return [mount for mount in map(_parse, lines) if mount is not None]


def mount_of(path: Path) -> Mount | None:
    """The mount that ``path`` lies on (it need not exist); of several at one point, the uppermost."""
    real = os.path.realpath(path)
    best: Mount | None = None
    for mount in mounts():
        inside = mount.point == "/" or real == mount.point or real.startswith(mount.point + "/")
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def _parse(line: str) -> Mount | None:
    left, separator, right = line.partition(" - ")
    fields = left.split(" ")
    if not separator or len(fields) < 6:
        return None
    point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4])
    return Mount(point=point, kind=right.split(" ", 1)[0])
