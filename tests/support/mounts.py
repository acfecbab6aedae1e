"""Real mounts for tests that run as root with CAP_SYS_ADMIN; elsewhere those tests are skipped."""

import ctypes
import os
import select
import shutil
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


def run_succeeds(*command: str | Path) -> bool:
    """Return whether the command exists and succeeds."""
    return (
        shutil.which(str(command[0])) is not None
        and not subprocess.run(command, capture_output=True, check=False).returncode
    )


def mount(folder: Path, source: Path | None = None) -> None:
    """Mount an empty tmpfs at ``folder``, or bind ``source`` there."""
    arguments = ["-t", "tmpfs", "tmpfs"] if source is None else ["--bind", str(source)]
    subprocess.run(["mount", *arguments, str(folder)], check=True, capture_output=True)


def unmount(folder: Path, *, lazily: bool = False) -> None:
    """Unmount the uppermost mount at ``folder``; with ``lazily`` also one that is in use."""
    subprocess.run(["umount", *(["-l"] if lazily else []), str(folder)], check=True, capture_output=True)


def can_mount() -> bool:
    """Return whether this process may mount."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=False, capture_output=True)
        if process.returncode == 0:
            unmount(Path(folder))
    return process.returncode == 0


@contextmanager
def temporary_mount(folder: Path, source: Path | None = None) -> Iterator[Path]:
    """Create ``folder`` and mount it as `mount` does; unmount everything there at the end.

    Skip where mounting is refused.
    """
    if not can_mount():
        pytest.skip("mounting needs root and CAP_SYS_ADMIN")
    folder.mkdir()
    mount(folder, source)
    try:
        yield folder
    finally:
        while subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True).returncode == 0:
            pass


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount an ext4 image of 2 MB with 32 inodes at ``folder``. Skip where mounting is refused."""
    image = folder.with_suffix(".img")
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(2 * 2**20)
    formatted = run_succeeds("mkfs.ext4", "-q", "-F", "-N", "32", "-O", "^has_journal", image)
    if not formatted or not run_succeeds("mount", "-o", "loop", image, folder):
        pytest.skip("may not mount an ext4 image")
    try:
        yield folder
    finally:
        assert run_succeeds("umount", "-l", folder)


@contextmanager
def frozen_disk(disk: Path) -> Iterator[threading.Event]:
    """Freeze a disk with fsfreeze(8), so that writers wait. After 5 s the event is set and the disk is thawed."""
    if not run_succeeds("fsfreeze", "-f", disk):
        pytest.skip("fsfreeze is not possible with this disk or user")
    timed_out = threading.Event()

    def thaw() -> None:
        timed_out.set()
        run_succeeds("fsfreeze", "-u", disk)

    timer = threading.Timer(5.0, thaw)
    timer.start()
    try:
        yield timed_out
    finally:
        timer.cancel()
        run_succeeds("fsfreeze", "-u", disk)


@contextmanager
def hanging_mount(folder: Path, *, dead: bool = False, unkillable: bool = False) -> Iterator[Path]:
    """Mount a file system at ``folder`` that never answers, so that callers wait in the kernel. Skip where it cannot.

    It is a FUSE mount whose server does not reply to FUSE_INIT: a waiting process can be killed. With ``unkillable``
    the server replies to FUSE_INIT and to nothing else: then not even SIGKILL ends the wait, as on NFS. With ``dead``,
    and at the end of the block, the server is closed: callers get ENOTCONN, as from an sshfs whose connection broke.
    """
    try:
        server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        pytest.skip("a mount that hangs needs /dev/fuse")
    finished = threading.Event()
    replying = threading.Thread(target=_answer_fuse_init, args=(server, finished), daemon=True)
    try:
        options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
        if _libc.mount(b"hanging", os.fsencode(folder), b"fuse", 0, options) != 0:
            pytest.skip("mounting needs root and CAP_SYS_ADMIN")
        if dead:
            os.close(server)
        if unkillable:
            replying.start()
        yield folder
    finally:
        finished.set()
        if unkillable and replying.ident is not None:
            # The server cannot be closed while the thread reads from it, and waiting callers would go on waiting.
            replying.join()
        if not dead:
            os.close(server)
        # The flag 2 is MNT_DETACH.
        _libc.umount2(os.fsencode(folder), 2)


def _answer_fuse_init(server: int, finished: threading.Event) -> None:
    """Reply to FUSE_INIT (linux/fuse.h: fuse_in_header, fuse_out_header, fuse_init_out), then read without replying."""
    initialized = False
    # Reading fails with ENODEV once the mount is gone.
    with suppress(OSError):
        while not finished.is_set():
            if not select.select([server], [], [], 0.02)[0]:
                continue
            unique = struct.unpack_from("<8xQ", os.read(server, 2**17))[0]
            if not initialized:
                reply = struct.pack("<IIIIHHI36x", 7, 31, 0, 0, 16, 8, 4096)
                os.write(server, struct.pack("<IiQ", 16 + len(reply), 0, unique) + reply)
                initialized = True


_libc = ctypes.CDLL(None, use_errno=True)
