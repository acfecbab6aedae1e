"""Real mounts, for tests that run as root with CAP_SYS_ADMIN; elsewhere they skip."""

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
    """Whether the command is there and succeeds."""
    return (
        shutil.which(str(command[0])) is not None
        and not subprocess.run(command, capture_output=True, check=False).returncode
    )


def mount(folder: Path, source: Path | None = None) -> None:
    """Mounts an empty tmpfs at ``folder``, or binds ``source`` there."""
    how = ["-t", "tmpfs", "tmpfs"] if source is None else ["--bind", str(source)]
    subprocess.run(["mount", *how, str(folder)], check=True, capture_output=True)


def unmount(folder: Path, *, lazily: bool = False) -> None:
    """Takes the uppermost mount at ``folder`` away; ``lazily`` also where it is in use."""
    subprocess.run(["umount", *(["-l"] if lazily else []), str(folder)], check=True, capture_output=True)


def can_mount() -> bool:
    """Whether this process may mount."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=False, capture_output=True)
        if done.returncode == 0:
            unmount(Path(folder))
    return done.returncode == 0


@contextmanager
def temporary_mount(folder: Path, source: Path | None = None) -> Iterator[Path]:
    """Makes ``folder`` and mounts as `mount` does; in the end nothing is mounted there. Skips where that cannot be."""
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
    """A disk of 2 MB with 32 inodes, mounted at ``folder``: ext4 in a file. Skips where that cannot be."""
    image = folder.with_suffix(".img")
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(2 * 2**20)
    made = run_succeeds("mkfs.ext4", "-q", "-F", "-N", "32", "-O", "^has_journal", image)
    if not made or not run_succeeds("mount", "-o", "loop", image, folder):
        pytest.skip("may not mount an ext4 image")
    try:
        yield folder
    finally:
        assert run_succeeds("umount", "-l", folder)


@contextmanager
def frozen_disk(disk: Path) -> Iterator[threading.Event]:
    """fsfreeze(8): whoever writes to the disk waits; for 5 s at most, then the event is set and the disk goes on."""
    if not run_succeeds("fsfreeze", "-f", disk):
        pytest.skip("this disk, or this user, knows no fsfreeze")
    waited = threading.Event()

    def thaw() -> None:
        waited.set()
        run_succeeds("fsfreeze", "-u", disk)

    timer = threading.Timer(5.0, thaw)
    timer.start()
    try:
        yield waited
    finally:
        timer.cancel()
        run_succeeds("fsfreeze", "-u", disk)


@contextmanager
def hanging_mount(folder: Path, *, dead: bool = False, to_the_death: bool = False) -> Iterator[Path]:
    """A mount at ``folder`` that answers nothing: whoever asks waits in the kernel. Skips like `mounted`.

    It is a FUSE file system whose server never says hello; ``to_the_death``: it does, and nothing more, and then not
    even SIGKILL ends the waiting, as on NFS. Where that has ended (``dead``), and here in the end, whoever asks gets
    ENOTCONN, as of an sshfs whose line was cut.
    """
    try:
        server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        pytest.skip("a mount that hangs needs /dev/fuse")
    over = threading.Event()
    listening = threading.Thread(target=_answer_fuse_init, args=(server, over), daemon=True)
    try:
        options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
        if _libc.mount(b"hanging", os.fsencode(folder), b"fuse", 0, options) != 0:
            pytest.skip("mounting needs root and CAP_SYS_ADMIN")
        if dead:
            os.close(server)
        if to_the_death:
            listening.start()
        yield folder
    finally:
        over.set()
        if to_the_death and listening.ident is not None:
            # who still reads from the server keeps it from being closed, and what waits, waiting
            listening.join()
        if not dead:
            os.close(server)
        # MNT_DETACH
        _libc.umount2(os.fsencode(folder), 2)


def _answer_fuse_init(server: int, over: threading.Event) -> None:
    """Answers FUSE_INIT (linux/fuse.h: fuse_in_header, fuse_out_header, fuse_init_out), and then only listens."""
    greeted = False
    # It is ENODEV once unmounted.
    with suppress(OSError):
        while not over.is_set():
            if not select.select([server], [], [], 0.02)[0]:
                continue
            unique = struct.unpack_from("<8xQ", os.read(server, 2**17))[0]
            if not greeted:
                hello = struct.pack("<IIIIHHI36x", 7, 31, 0, 0, 16, 8, 4096)
                os.write(server, struct.pack("<IiQ", 16 + len(hello), 0, unique) + hello)
                greeted = True


_libc = ctypes.CDLL(None, use_errno=True)
