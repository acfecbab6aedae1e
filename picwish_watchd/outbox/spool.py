"""The spool: the daemon's own folder beside the journal, where paid results lie until they stand in an outbox."""

import hashlib
import os
import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from picwish_watchd.fs.atomic_write import sync_folder
from picwish_watchd.fs.safe_open import OpenFile, open_file

_RESULT_NAME = re.compile(r"([0-9]+)\.result")
_OWN_NAME = re.compile(r"[0-9]+\.(result|[A-Za-z0-9_-]+\.part)")


class Spool:
    """A folder with one file a job. All calls raise OSError: it is a local disk, and its failure stops the buying."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def ensure_folder(self) -> None:
        """Makes the folder, mode 0700, if it is not there; its parent is the journal's and must exist."""
        try:
            self.folder.mkdir(mode=0o700)
        except FileExistsError:
            self.folder.chmod(0o700)
        else:
            _sync_path(self.folder.parent)

    def result_path(self, job_id: int) -> Path:
        """Where the result of a job lies, or will."""
        return self.folder / f"{job_id}.result"

    def new_part_path(self, job_id: int, label: str) -> Path:
        """A name to write a new result to; nothing is there. ``label`` ([A-Za-z0-9_-]+) tells two writers apart."""
        temp = self.folder / f"{job_id}.{label}.part"
        temp.unlink(missing_ok=True)
        return temp

    def commit_result(self, temp: Path, job_id: int) -> None:
        """What was written to ``temp`` is the job's result: when this returns it survives a power cut."""
        _sync_path(temp)
        temp.replace(self.result_path(job_id))
        _sync_path(self.folder)

    def copy_from_outbox(self, path: Path, job_id: int, sha256: str) -> bool:
        """Copies a result that stands in an outbox, for a job of the same content; False if it stands there no more.

        It must still have the hash ``sha256``; when this returns True the copy survives a power cut.
        """
        opened = open_file(path)
        if not isinstance(opened, OpenFile):
            return False
        temp = self.new_part_path(job_id, "copy")
        digest = hashlib.sha256()
        with opened, temp.open("xb") as copy:
            for block in opened.iter_blocks():
                digest.update(block)
                copy.write(block)
        if digest.hexdigest() != sha256:
            temp.unlink()
            return False
        self.commit_result(temp, job_id)
        return True

    def remove_result(self, job_id: int) -> None:
        """The result stands in the outbox, or nobody wants it; no error if it is not there."""
        self.result_path(job_id).unlink(missing_ok=True)

    def remove_orphans(self, keep: Collection[int]) -> int:
        """At start: removes unfinished files, and results of jobs not in ``keep``; answers how many. Others stay."""
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
        """Number of files that lie here, and their bytes in all; nothing while the folder is not there."""
        files = size = 0
        with suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            for entry in entries:
                # it has just been delivered
                with suppress(FileNotFoundError):
                    size += entry.stat(follow_symlinks=False).st_size
                    files += 1
        return files, size

    def free_space(self) -> int:
        """Bytes that can still be written here by us (statvfs(3): f_bavail)."""
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize


def _sync_path(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if path.is_dir():
            sync_folder(fd)
        else:
            os.fsync(fd)
    finally:
        os.close(fd)


def spool_folder(journal: Path) -> Path:
    """The daemon's own folder beside its journal."""
    return journal.with_name(journal.name + ".spool")
