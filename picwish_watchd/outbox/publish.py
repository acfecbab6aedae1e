"""Publishing: a result goes from the spool into an outbox, under its final name complete or not at all."""

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
    """It stands in the outbox, and is durable there."""

    path: Path


@dataclass(frozen=True, slots=True)
class NameTaken:
    """Something else bears that name."""


@dataclass(frozen=True, slots=True)
class ExistingFile:
    """A file that bears the name, or one that the file system takes for the same: A.JPG for a.jpg on many shares."""

    stamp: Stamp
    sha256: str


@dataclass(frozen=True, slots=True)
class SpoolDamaged:
    """What lies in the spool is not what was put there."""

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
    """Copies ``spooled`` to ``name`` below ``outbox``, durably: synced, renamed, the folder synced.

    The copy is made under a dot-name beside it and must have the hash ``sha256``. Nothing is ever overwritten but,
    with ``replace``, a file. Missing subfolders are made; the outbox itself is not (see `place.ensure_root`), and below
    it no symbolic link is followed; nothing is written where it does not lie on ``home`` (see `open_folder`). ``mode``
    is that of the file; new folders get x wherever it has r. ``tag`` ([A-Za-z0-9_-]+) goes into the dot-name. After
    anything but `Published` no part is left behind; only where syncing the folder failed may the final name stand
    already (`existing_sha256` recognises it).
    """
    try:
        with (
            _open_spooled(spooled) as spool,
            open_folder(outbox, name.parts[:-1], mode, accepted=accepted) as folder,
        ):
            part, found = write_part(folder, _iter_spool_blocks(spool), tag=tag, mode=mode)
            try:
                if found != sha256:
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
    """Writes ``text`` as UTF-8 beside ``name`` below ``root``: NAME.EXT + ``ending`` (".json", ".error.json").

    An older sidecar of that name is replaced, complete or not at all. `Taken` if it is no file. Where ``root`` does not
    lie on ``home`` nothing is written (see `open_folder`).
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
    """The file at ``path``, to find out whose it is before it is replaced; None if there is none or it is ``examined``.

    Not only names tell: a file system may take ``path`` for the name of a file that is spelled otherwise.
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
    """The first of the names (without end) that nothing below ``outbox`` bears: thousands may be taken, by Scan.jpg."""
    return next(name for name in names if not os.path.lexists(outbox / name))


def find_same_file(path: Path, others: Collection[Path]) -> Path | None:
    """Which of the ``others`` is the very file that ``path`` leads to, if one is."""
    for other in others:
        with suppress(OSError):
            if os.path.samestat(os.lstat(path), os.lstat(other)):
                return other
    return None


def existing_sha256(path: Path) -> str | FolderUnavailable | None:
    """The hash of the file at ``path``: how an own result is recognised after a crash. None: there is no file."""
    found = inspect_existing(path, None)
    return found.sha256 if isinstance(found, ExistingFile) else found


def ensure_durable(path: Path, sha256: str) -> bool | FolderUnavailable:
    """Whether the file at ``path`` has that hash; if so, its name is synced: a crash may have come before that."""
    found = existing_sha256(path)
    if isinstance(found, FolderUnavailable):
        return found
    if found != sha256:
        return False
    try:
        sync_folder_at(path.parent)
    except OSError as error:
        return FolderUnavailable(error.strerror or str(error))
    return True


def find_existing_image(outbox: Path, names: Collection[PurePath]) -> Path | FolderUnavailable | None:
    """A file below ``outbox`` with one of the ``names``, under any spelling of its extension.

    On a file system that takes A.JPG for a.jpg, so do we.

    For `if_exists: skip`, before paying: the caller makes a name for each `Format` that the result may come in.
    """
    for folder in sorted({name.parent for name in names}):
        wanted = {_name_key(name.name) for name in names if name.parent == folder}
        try:
            with os.scandir(outbox / folder) as entries:
                found = min(
                    (each.name for each in entries if _name_key(each.name) in wanted and _is_file(each)),
                    default=None,
                ) or _find_any_spelling(outbox / folder, wanted)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR) and os.path.isdir(outbox):
                continue
            if not isinstance(classify_write_error(error), NameRefused):
                return FolderUnavailable(error.strerror or str(error))
            found, folder = _find_any_spelling(outbox / make_portable(folder), wanted), make_portable(folder)
        if found is not None:
            return outbox / folder / found
    return None


def remove_stale_parts(root: Path) -> bool:
    """Removes the parts that a crash left below ``root``; False where that did not go to its end: to be tried again.

    Only files named ``.picwish-*.part`` are touched, and none that this process has made. Links below the root are not
    followed, and folders that are shut to us are left: no part of ours is in them.
    """
    failed: list[OSError] = []

    def shut_or_failed(error: OSError) -> None:
        if not isinstance(error, PermissionError):
            failed.append(error)

    try:
        top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        for _, _, files, folder in os.fwalk(".", dir_fd=top, onerror=shut_or_failed):
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
    """None where no file can be: nothing bears a name that the file system refuses."""
    opened = open_file(path)
    if isinstance(opened, OpenFile):
        return opened
    if not isinstance(opened, Unreadable) or isinstance(_lstat(path), NameRefused):
        return None
    return FolderUnavailable(opened.reason)


def _classify_publish_error(error: OSError, outbox: Path, name: PurePath) -> FolderUnavailable | NoSpace | NameRefused:
    """SMB servers answer "no such file" to a new name with a character that they do not take."""
    if error.errno == errno.ENOENT and make_portable(name) != name and os.path.isdir(outbox):
        return NameRefused(error.strerror or str(error))
    return classify_write_error(error)


def _open_spooled(spooled: Path) -> OpenFile:
    opened = open_file(spooled)
    if not isinstance(opened, OpenFile):
        raise _SpoolError(opened.reason if isinstance(opened, Unreadable) else "is not there any more")
    return opened


def _iter_spool_blocks(spool: OpenFile) -> Iterator[bytes]:
    """Tells a failure to read the spool from a failure to write to the outbox."""
    try:
        yield from spool.iter_blocks()
    except OSError as error:
        raise _SpoolError(error.strerror or str(error)) from error


def _name_key(name: str) -> tuple[str, Format | None]:
    """Equal for two names of one stem and one format; of other kinds of files only the name itself counts."""
    stem, dot, suffix = name.rpartition(".")
    kind = Format.from_suffix(suffix) if dot else None
    return (stem, kind) if kind else (name, None)


def _find_any_spelling(folder: Path, wanted: Collection[tuple[str, Format | None]]) -> str | None:
    """A file that the file system finds under one of the names though none is spelled so, or would be put there."""
    for stem, kind in wanted:
        for name in [f"{stem}.{each}" for each in kind.extensions] if kind else [stem]:
            found = _lstat(folder / name)
            if isinstance(found, NameRefused):
                name = make_portable(PurePath(name)).name
                found = _lstat(folder / name)
            if isinstance(found, os.stat_result) and stat.S_ISREG(found.st_mode):
                return name
    return None


def _lstat(path: Path) -> os.stat_result | FolderUnavailable | NoSpace | NameRefused:
    try:
        return os.lstat(path)
    except OSError as error:
        return classify_write_error(error)


def _is_file(entry: "os.DirEntry[str]") -> bool:
    return entry.is_file(follow_symlinks=False)
