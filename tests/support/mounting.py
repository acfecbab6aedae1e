"""Real mounts, for tests that run as root with CAP_SYS_ADMIN; elsewhere they skip."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def mount(folder: Path, source: Path | None = None) -> None:
    """Mounts an empty tmpfs at ``folder``, or binds ``source`` there."""
    how = ["-t", "tmpfs", "tmpfs"] if source is None else ["--bind", str(source)]
    subprocess.run(["mount", *how, str(folder)], check=True, capture_output=True)


def umount(folder: Path, *, lazily: bool = False) -> None:
    """Takes the uppermost mount at ``folder`` away; ``lazily`` also where it is in use."""
    subprocess.run(["umount", *(["-l"] if lazily else []), str(folder)], check=True, capture_output=True)


@contextmanager
def mounted(folder: Path, source: Path | None = None) -> Iterator[Path]:
    """Makes ``folder`` and mounts as `mount` does; in the end nothing is mounted there. Skips where that cannot be."""
    folder.mkdir()
    try:
        if os.geteuid() != 0:
            raise PermissionError
        mount(folder, source)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting needs root and CAP_SYS_ADMIN")
    try:
        yield folder
    finally:
        while subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True).returncode == 0:
            pass
