"""The spool: the daemon's own folder beside the journal, where paid results are kept until they are in an outbox."""

import hashlib
import os
import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from picwish_watchd.fs.durability import sync_folder_at, sync_path
from picwish_watchd.fs.safe_open import OpenFile, open_file

_RESULT_NAME = re.compile(r"([0-9]+)\.result")
_OWN_NAME = re.compile(r"[0-9]+\.(result|[A-Za-z0-9_-]+\.part)")


class Spool:
    """A folder with one file per job. All methods raise OSError: the disk is local, and if it fails, buying stops."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def ensure_folder(self) -> None:
        """Create the folder with mode 0700 unless it exists; its parent is the journal's folder and must exist."""
        try:
            self.folder.mkdir(mode=0o700)
        except FileExistsError:
            self.folder.chmod(0o700)
        else:
            sync_folder_at(self.folder.parent)

    def result_path(self, job_id: int) -> Path:
        """Return the path for the result of a job, whether it exists or not."""
        return self.folder / f"{job_id}.result"

    def new_part_path(self, job_id: int, label: str) -> Path:
        """Return a path to write a new result to, after removing what is there.

        ``label`` ([A-Za-z0-9_-]+) keeps two writers for one job apart.
        """
        part = self.folder / f"{job_id}.{label}.part"
        part.unlink(missing_ok=True)
        return part

    def commit_result(self, part: Path, job_id: int) -> None:
        """Make the file ``part`` the job's result; after that it survives a power cut."""
        sync_path(part)
        part.replace(self.result_path(job_id))
        sync_folder_at(self.folder)

    def copy_from_outbox(self, path: Path, job_id: int, sha256: str) -> bool:
        """Copy a delivered result, for a job of the same content; return whether that was possible.

        It is not if the file is gone or does not have the hash ``sha256``. If True, the copy survives a power cut.
        """
        opened = open_file(path)
        if not isinstance(opened, OpenFile):
            return False
        part = self.new_part_path(job_id, "copy")
        digest = hashlib.sha256()
        with opened, part.open("xb") as copy:
            for block in opened.iter_blocks():
                digest.update(block)
                copy.write(block)
        if digest.hexdigest() != sha256:
            part.unlink()
            return False
        self.commit_result(part, job_id)
        return True

    def remove_result(self, job_id: int) -> None:
        """Remove a result that was delivered or is no longer wanted; it need not exist."""
        self.result_path(job_id).unlink(missing_ok=True)

    def remove_orphans(self, keep: Collection[int]) -> int:
        """Remove unfinished files, and results of jobs that are not in ``keep``; return how many files.

        Only for the start, when nothing is being written. Files with other names stay.
        """
        removed = 0
        for name in os.listdir(self.folder):
            if not _OWN_NAME.fullmatch(name):
                continue
            result = _RESULT_NAME.fullmatch(name)
            if result is None or int(result[1]) not in keep:
                (self.folder / name).unlink()
                removed += 1
        return removed

    def disk_usage(self) -> tuple[int, int]:
        """Return the number of files in the spool and their total size in bytes; zeros while there is no folder."""
        files = size = 0
        with suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            for entry in entries:
                # A result may be delivered, and so removed, at any moment.
                with suppress(FileNotFoundError):
                    size += entry.stat(follow_symlinks=False).st_size
                    files += 1
        return files, size

    def free_space(self) -> int:
        """Return how many bytes this user can still write here (statvfs(3): f_bavail)."""
        status = os.statvfs(self.folder)
        return status.f_bavail * status.f_frsize


def spool_folder(journal: Path) -> Path:
    """Return the path of the spool that belongs to a journal."""
    return journal.with_name(journal.name + ".spool")
