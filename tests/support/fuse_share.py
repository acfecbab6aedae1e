"""A FUSE file system that behaves like a share of a NAS: it folds case and refuses names.

    python -m tests.support.fuse_share BACKING MOUNT [fold] [refuse=ERRNO] [longest=BYTES] [untyped] [ill=NAME]

It serves the folder BACKING at MOUNT and speaks the protocol of fuse(4) (linux/fuse.h, version 7.31) itself. Like vfat
and many shares it supports neither hard links nor the flags of renameat2(2).

* fold: names that differ in case only are one name, spelled as it was at first.
* refuse: fail with this errno for names that Windows does not allow.
* longest: the longest name in bytes.
* untyped: list names without their type (DT_UNKNOWN, readdir(3)).
* ill: looking up this name fails with EIO.
"""

import ctypes
import errno
import os
import re
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

_REQUEST_HEADER = struct.Struct("<IIQQIIII")
_ATTR_LAYOUT = "QQQQQQIIIIIIIIII"
_FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f\udc80-\udcff]|[. ]$')
_MAX_WRITE = 1 << 17
_ROOT_NODE = 1


@contextmanager
def mount_share(folder: Path, *options: str) -> Iterator[Path]:
    """Mount a share at ``folder``/share. Skip the test where mounting is refused."""
    # The server process starts twice as fast without pytest.
    import pytest

    backing, mount = folder / "share-backing", folder / "share"
    backing.mkdir()
    mount.mkdir()
    if os.geteuid() != 0 or not os.access("/dev/fuse", os.W_OK):
        pytest.skip("needs root and /dev/fuse")
    command = [sys.executable, "-m", "tests.support.fuse_share", str(backing), str(mount), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        try:
            if server.stdout.readline() != b"ready\n":
                pytest.skip("may not mount")
            yield mount
        finally:
            subprocess.run(["umount", "-l", mount], check=False, capture_output=True)
            server.terminate()


class ShareServer:
    """The file server: it answers one request after the other until it is unmounted."""

    def __init__(self, backing: str, fold: bool, refuse: int, longest: int, untyped: bool, ill: str) -> None:
        self._paths = {_ROOT_NODE: backing}
        self._untyped, self._ill = untyped, ill
        self._fold, self._refuse, self._longest = fold, refuse, longest
        self._next = _ROOT_NODE

    def serve(self, fuse: int) -> None:
        while True:
            try:
                request = os.read(fuse, _MAX_WRITE + 4096)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ENOENT):
                    continue
                return
            _, opcode, unique, node, *_ = _REQUEST_HEADER.unpack_from(request)
            body = request[_REQUEST_HEADER.size :]
            method = self._METHODS.get(opcode)
            # FORGET and INTERRUPT have no reply.
            if opcode in (2, 36, 42):
                continue
            code, reply = 0, b""
            try:
                if method is None:
                    raise OSError(errno.ENOSYS, "")
                reply = method(self, node, body)
            except OSError as error:
                code = error.errno or errno.EIO
            os.write(fuse, struct.pack("<IiQ", 16 + len(reply), -code, unique) + reply)

    def _init(self, _node: int, body: bytes) -> bytes:
        readahead = struct.unpack_from("<I", body, 8)[0]
        return struct.pack("<IIIIHHIIHHI28x", 7, 31, readahead, 0, 16, 12, _MAX_WRITE, 1, 0, 0, 0)

    def _resolve_name(self, node: int, name: bytes) -> str:
        """Return the path of a name in a folder, in the spelling that the backing folder has."""
        folder, text = self._paths[node], os.fsdecode(name)
        if text == self._ill:
            raise OSError(errno.EIO, "")
        if self._refuse and _FORBIDDEN.search(text):
            raise OSError(self._refuse, "")
        if len(name) > self._longest:
            raise OSError(errno.ENAMETOOLONG, "")
        if self._fold:
            text = next((each for each in os.listdir(folder) if each.casefold() == text.casefold()), text)
        return os.path.join(folder, text)

    def _entry(self, path: str) -> bytes:
        attributes = _pack_attributes(os.lstat(path))
        node = next((number for number, existing in self._paths.items() if existing == path), None)
        if node is None:
            self._next += 1
            node = self._next
            self._paths[node] = path
        return struct.pack("<QQQQII", node, 0, 0, 0, 0, 0) + attributes

    def _lookup(self, node: int, body: bytes) -> bytes:
        return self._entry(self._resolve_name(node, body[:-1]))

    def _getattr(self, node: int, _body: bytes) -> bytes:
        return bytes(16) + _pack_attributes(os.lstat(self._paths[node]))

    def _setattr(self, node: int, body: bytes) -> bytes:
        valid, _, _, size, _, atime, mtime, _, ansec, mnsec, _, mode = struct.unpack_from("<II6Q4I", body)
        path = self._paths[node]
        if valid & 1:
            os.chmod(path, stat.S_IMODE(mode))
        if valid & 8:
            os.truncate(path, size)
        if valid & 48:
            os.utime(path, ns=(atime * 10**9 + ansec, mtime * 10**9 + mnsec))
        return self._getattr(node, b"")

    def _mkdir(self, node: int, body: bytes) -> bytes:
        path = self._resolve_name(node, body[8:-1])
        os.mkdir(path, stat.S_IMODE(struct.unpack_from("<I", body)[0]))
        return self._entry(path)

    def _unlink(self, node: int, body: bytes) -> bytes:
        os.unlink(self._resolve_name(node, body[:-1]))
        return b""

    def _rmdir(self, node: int, body: bytes) -> bytes:
        os.rmdir(self._resolve_name(node, body[:-1]))
        return b""

    def _rename(self, node: int, body: bytes) -> bytes:
        old, new, _ = body[8:].split(b"\0")
        source = self._resolve_name(node, old)
        target = self._resolve_name(struct.unpack_from("<Q", body)[0], new)
        os.rename(source, target)
        for number, path in self._paths.items():
            if path == source or path.startswith(source + "/"):
                self._paths[number] = target + path[len(source) :]
            elif path == target:
                # This file was replaced by the rename.
                self._paths[number] = ""
        return b""

    def _create(self, node: int, body: bytes) -> bytes:
        flags, mode = struct.unpack_from("<II", body)
        path = self._resolve_name(node, body[16:-1])
        fd = os.open(path, flags | os.O_CREAT, stat.S_IMODE(mode))
        return self._entry(path) + struct.pack("<QII", fd, 1, 0)

    def _open(self, node: int, body: bytes) -> bytes:
        flags = struct.unpack_from("<I", body)[0] & ~(os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)
        return struct.pack("<QII", os.open(self._paths[node], flags), 1, 0)

    def _opendir(self, _node: int, _body: bytes) -> bytes:
        return bytes(16)

    def _read(self, _node: int, body: bytes) -> bytes:
        fd, offset, size = struct.unpack_from("<QQI", body)
        return os.pread(fd, size, offset)

    def _write(self, _node: int, body: bytes) -> bytes:
        fd, offset, size = struct.unpack_from("<QQI", body)
        return struct.pack("<II", os.pwrite(fd, body[40 : 40 + size], offset), 0)

    def _readdir(self, node: int, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        reply = b""
        for number, name in enumerate(sorted(os.listdir(self._paths[node])), 1):
            if number <= offset:
                continue
            raw = os.fsencode(name)
            status = os.lstat(os.path.join(self._paths[node], name))
            kind = 0 if self._untyped else status.st_mode >> 12
            entry = struct.pack("<QQII", status.st_ino, number, len(raw), kind) + raw
            entry += bytes(-len(entry) % 8)
            if len(reply) + len(entry) > size:
                break
            reply += entry
        return reply

    def _release(self, _node: int, body: bytes) -> bytes:
        os.close(struct.unpack_from("<Q", body)[0])
        return b""

    def _statfs(self, _node: int, _body: bytes) -> bytes:
        status = os.statvfs(self._paths[_ROOT_NODE])
        numbers = (status.f_blocks, status.f_bfree, status.f_bavail, status.f_files, status.f_ffree)
        return struct.pack("<5Q4I24x", *numbers, status.f_bsize, 255, status.f_frsize, 0)

    def _do_nothing(self, _node: int, _body: bytes) -> bytes:
        return b""

    _METHODS: ClassVar[dict[int, Callable[["ShareServer", int, bytes], bytes]]] = {
        1: _lookup,
        3: _getattr,
        4: _setattr,
        9: _mkdir,
        10: _unlink,
        11: _rmdir,
        12: _rename,
        14: _open,
        15: _read,
        16: _write,
        17: _statfs,
        18: _release,
        20: _do_nothing,
        25: _do_nothing,
        26: _init,
        27: _opendir,
        28: _readdir,
        29: _do_nothing,
        30: _do_nothing,
        35: _create,
    }


def _pack_attributes(status: os.stat_result) -> bytes:
    times = (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns)
    return struct.pack(
        "<" + _ATTR_LAYOUT,
        status.st_ino,
        status.st_size,
        status.st_blocks,
        *(each // 10**9 for each in times),
        *(each % 10**9 for each in times),
        status.st_mode,
        status.st_nlink,
        status.st_uid,
        status.st_gid,
        0,
        4096,
        0,
    )


def main(backing: str, mount: str, *options: str) -> None:
    """Mount the share, print "ready" and serve."""
    settings = dict(option.partition("=")[::2] for option in options)
    fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    data = f"fd={fuse},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    if libc.mount(b"share", os.fsencode(mount), b"fuse.share", 0, data) != 0:
        sys.exit(os.strerror(ctypes.get_errno()))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    refuse = getattr(errno, settings.get("refuse", ""), 0)
    longest, ill = int(settings.get("longest", 255)), settings.get("ill", "")
    ShareServer(backing, "fold" in settings, refuse, longest, "untyped" in settings, ill).serve(fuse)


if __name__ == "__main__":
    main(*sys.argv[1:])
