"""Make names and bytes survive a power cut: fsync(2) of files and of the folders that hold their names."""

import errno
import os
from pathlib import Path


def sync_path(path: str | Path) -> None:
    """Sync the file or folder at ``path``. Raises OSError, also where its file system cannot sync a folder."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(folder: int) -> None:
    """Sync an open folder (a descriptor), and so the names in it. Raises OSError.

    Some file systems cannot sync a folder and answer EINVAL; that is no error, for nothing else can be done there.
    """
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def sync_folder_at(path: Path) -> None:
    """Sync the folder at ``path`` as `sync_folder` does. Raises OSError, also if it is not a folder."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_folder(folder)
    finally:
        os.close(folder)
