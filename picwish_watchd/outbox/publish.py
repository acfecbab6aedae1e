"""Publish a result: copy it from the spool into an outbox, where its final name appears complete or not at all."""

import errno
import os
import re
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath

from picwish_watchd.fs.atomic_write import (
    PART_PREFIX,
    PART_SUFFIX,
    FolderUnavailable,
    NameRefused,
    NoSpace,
    classify_write_error,
    discard_part,
    is_own_part,
    open_folder,
    rename_durably,
    write_part,
)
from picwish_watchd.fs.durability import sync_folder_at
from picwish_watchd.fs.mounts import AcceptedMount
from picwish_watchd.fs.safe_open import OpenFile, open_file, sha256_of
from picwish_watchd.fs.verdicts import Unreadable
from picwish_watchd.images.formats import Format
from picwish_watchd.job import Stamp
from picwish_watchd.outbox.filenames import make_portable, sidecar_name

_PART_PATTERN = re.compile(re.escape(PART_PREFIX) + r"[A-Za-z0-9_-]+" + re.escape(PART_SUFFIX))


@dataclass(frozen=True, slots=True)
class Published:
    """The file is in the outbox and survives a power cut."""

    path: Path


@dataclass(frozen=True, slots=True)
class NameTaken:
    """Another file has that name."""


@dataclass(frozen=True, slots=True)
class ExistingFile:
    """The file that was found under a name. On shares that ignore case, this may be A.JPG for a.jpg."""

    stamp: Stamp
    sha256: str


@dataclass(frozen=True, slots=True)
class SpoolDamaged:
    """The file in the spool is not what was written there."""

    reason: str


class _SpoolError(Exception):
    pass


def publish_result(
    spooled: Path,
    outbox: Path,
    name: PurePath,
    *,
    mode: int,
    replace: bool,
    tag: str,
    sha256: str,
    accepted: AcceptedMount | None = None,
) -> Published | NameTaken | FolderUnavailable | NoSpace | NameRefused | SpoolDamaged:
    """Copy ``spooled`` to ``name`` below ``outbox`` durably: write and sync a part, rename it, sync the folder.

    The hidden part file has ``tag`` ([A-Za-z0-9_-]+) in its name, and must have the hash ``sha256``. Nothing is
    overwritten, except with ``replace`` a regular file. Missing subfolders are created, the outbox itself is not (see
    `ensure_root`). Below the outbox no symbolic link is followed. Nothing is written unless it is on the ``accepted``
    mount (see `open_folder`). ``mode`` is that of the file; new folders get x wherever it has r. No part file
    remains, whatever the outcome. If only the sync of the folder failed, the final name may exist all the same
    (`existing_sha256` recognises it).
    """
    try:
        with (
            _open_spooled(spooled) as spool,
            open_folder(outbox, name.parts[:-1], mode, accepted=accepted) as folder,
        ):
            part, digest = write_part(folder, _iter_spool_blocks(spool), tag=tag, mode=mode)
            try:
                if digest != sha256:
                    return SpoolDamaged(f"{spooled} is not what was put into the spool")
                if not rename_durably(folder, part, folder, name.name, replace=replace):
                    return NameTaken()
            finally:
                discard_part(folder, part)
    except _SpoolError as error:
        return SpoolDamaged(f"{spooled}: {error}")
    except OSError as error:
        return _classify_publish_error(error, outbox, name)
    return Published(outbox / name)


def write_sidecar(
    root: Path, name: PurePath, ending: str, text: str, *, mode: int, tag: str, accepted: AcceptedMount | None = None
) -> Published | NameTaken | FolderUnavailable | NoSpace | NameRefused:
    """Write ``text`` as UTF-8 beside ``name`` below ``root``: NAME.EXT + ``ending`` (".json", ".error.json").

    An older sidecar of that name is replaced, completely or not at all; `NameTaken` if it is not a regular file.
    Nothing is written unless ``root`` is on the ``accepted`` mount (see `open_folder`).
    """
    target = sidecar_name(name, ending)
    try:
        with open_folder(root, target.parts[:-1], mode, accepted=accepted) as folder:
            part, _ = write_part(folder, [text.encode("utf-8", "backslashreplace")], tag=tag, mode=mode)
            try:
                if not rename_durably(folder, part, folder, target.name, replace=True):
                    return NameTaken()
            finally:
                discard_part(folder, part)
    except OSError as error:
        return classify_write_error(error)
    return Published(root / target)


def inspect_existing(path: Path, examined: Stamp | None) -> ExistingFile | FolderUnavailable | None:
    """Return the file at ``path``, so that its owner can be found before it is replaced.

    None if there is no file, or its stamp is ``examined``. Names alone do not tell whose file it is: a file system may
    take ``path`` for the name of a file that is spelled differently.
    """
    opened = _open_existing(path)
    if not isinstance(opened, OpenFile):
        return opened
    with opened:
        try:
            return None if opened.stamp == examined else ExistingFile(opened.stamp, sha256_of(opened))
        except OSError as error:
            return FolderUnavailable(error.strerror or str(error))


def first_free_name(outbox: Path, names: Iterator[PurePath]) -> PurePath:
    """Return the first of the endless ``names`` that is free below ``outbox``; thousands of "Scan.jpg" may be taken."""
    return next(name for name in names if not os.path.lexists(outbox / name))


def find_same_file(path: Path, others: Collection[Path]) -> Path | None:
    """Return the one of ``others`` that is the same file as ``path`` (same device and inode), or None."""
    for other in others:
        with suppress(OSError):
            if os.path.samestat(os.lstat(path), os.lstat(other)):
                return other
    return None


def existing_sha256(path: Path) -> str | FolderUnavailable | None:
    """Return the SHA-256 of the file at ``path``, which identifies our result after a crash; None if there is none."""
    existing = inspect_existing(path, None)
    return existing.sha256 if isinstance(existing, ExistingFile) else existing


def ensure_durable(path: Path, sha256: str) -> bool | FolderUnavailable:
    """Return whether the file at ``path`` has that hash. If so, sync its folder: a crash may have come before that."""
    existing = existing_sha256(path)
    if isinstance(existing, FolderUnavailable):
        return existing
    if existing != sha256:
        return False
    try:
        sync_folder_at(path.parent)
    except OSError as error:
        return FolderUnavailable(error.strerror or str(error))
    return True


def find_existing_image(outbox: Path, names: Collection[PurePath]) -> Path | FolderUnavailable | None:
    """Return a file below ``outbox`` with one of the ``names``, with any spelling of its extension, or None.

    On a file system that takes A.JPG for a.jpg the name may differ in case, too. This is for `if_exists: skip` before
    paying: the caller passes a name for each `Format` that the result may have.
    """
    for folder in sorted({name.parent for name in names}):
        wanted = {_name_key(name.name) for name in names if name.parent == folder}
        try:
            with os.scandir(outbox / folder) as entries:
                existing = min(
                    (each.name for each in entries if _name_key(each.name) in wanted and _is_file(each)),
                    default=None,
                ) or _find_any_spelling(outbox / folder, wanted)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR) and os.path.isdir(outbox):
                continue
            if not isinstance(classify_write_error(error), NameRefused):
                return FolderUnavailable(error.strerror or str(error))
            existing, folder = _find_any_spelling(outbox / make_portable(folder), wanted), make_portable(folder)
        if existing is not None:
            return outbox / folder / existing
    return None


def remove_stale_parts(root: Path) -> bool:
    """Remove the parts that a crash left below ``root``; return False if that failed and is to be tried again.

    Only files named ``.picwish-*.part`` are removed, and none that this process has made. Links below the root are not
    followed. Folders that we may not read are skipped, for no part of ours can be in them.
    """
    failed: list[OSError] = []

    def record_failure(error: OSError) -> None:
        if not isinstance(error, PermissionError):
            failed.append(error)

    try:
        top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        for _, _, files, folder in os.fwalk(".", dir_fd=top, onerror=record_failure):
            for name in files:
                if _PART_PATTERN.fullmatch(name) and not is_own_part(name):
                    _remove_part(folder, name, failed)
    except OSError as error:
        failed.append(error)
    finally:
        os.close(top)
    return all(isinstance(error, FileNotFoundError) for error in failed)


def _remove_part(folder: int, name: str, failed: list[OSError]) -> None:
    try:
        if stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=folder)
    except OSError as error:
        failed.append(error)


def _open_existing(path: Path) -> OpenFile | FolderUnavailable | None:
    """Open the file at ``path``; None if there is none, as under a name that the file system refuses."""
    opened = open_file(path)
    if isinstance(opened, OpenFile):
        return opened
    if not isinstance(opened, Unreadable) or isinstance(_lstat(path), NameRefused):
        return None
    return FolderUnavailable(opened.reason)


def _classify_publish_error(error: OSError, outbox: Path, name: PurePath) -> FolderUnavailable | NoSpace | NameRefused:
    """Classify an error. SMB servers report a new name that they refuse as "no such file"."""
    if error.errno == errno.ENOENT and make_portable(name) != name and os.path.isdir(outbox):
        return NameRefused(error.strerror or str(error))
    return classify_write_error(error)


def _open_spooled(spooled: Path) -> OpenFile:
    opened = open_file(spooled)
    if not isinstance(opened, OpenFile):
        raise _SpoolError(opened.reason if isinstance(opened, Unreadable) else "is not there any more")
    return opened


def _iter_spool_blocks(spool: OpenFile) -> Iterator[bytes]:
    """Yield the blocks of a result; a read error becomes `_SpoolError`, unlike an error while writing the outbox."""
    try:
        yield from spool.iter_blocks()
    except OSError as error:
        raise _SpoolError(error.strerror or str(error)) from error


def _name_key(name: str) -> tuple[str, Format | None]:
    """Return a key under which a.jpg and a.jpeg are equal. A name without an image suffix equals only itself."""
    stem, dot, suffix = name.rpartition(".")
    kind = Format.from_suffix(suffix) if dot else None
    return (stem, kind) if kind else (name, None)


def _find_any_spelling(folder: Path, wanted: Collection[tuple[str, Format | None]]) -> str | None:
    """Return a wanted name that opens an existing file, perhaps spelled differently on the disk; else None.

    A name that the file system refuses is looked for in its portable form, under which it would be delivered.
    """
    for stem, kind in wanted:
        for name in [f"{stem}.{each}" for each in kind.extensions] if kind else [stem]:
            status = _lstat(folder / name)
            if isinstance(status, NameRefused):
                name = make_portable(PurePath(name)).name
                status = _lstat(folder / name)
            if isinstance(status, os.stat_result) and stat.S_ISREG(status.st_mode):
                return name
    return None


def _lstat(path: Path) -> os.stat_result | FolderUnavailable | NoSpace | NameRefused:
    try:
        return os.lstat(path)
    except OSError as error:
        return classify_write_error(error)


def _is_file(entry: "os.DirEntry[str]") -> bool:
    return entry.is_file(follow_symlinks=False)
