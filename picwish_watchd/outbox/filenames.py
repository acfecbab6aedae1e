"""Build file names that file systems accept and that stay below the outbox, from a template and a job's facts."""

import os
import re
import string
import zlib
from datetime import datetime
from pathlib import Path, PurePath

from picwish_watchd.images.formats import Format

#: Bytes of one path component (limits.h: NAME_MAX; the same on ext4, XFS, btrfs, and nearly everywhere).
NAME_MAX = 255
#: Characters of a task ID from PicWish that a name may contain.
_TASK_ID_MAX = 64
#: Bytes of a name on the file systems with the lowest limit (eCryptfs, as in encrypted NAS folders).
_PORTABLE_MAX = 143
#: Bytes to which a name is cut there, so that a number and a sidecar's ending still fit.
_PORTABLE_CUT = 120
#: Characters that Windows refuses, and so do SMB servers, NTFS, exFAT and vfat (Microsoft, "Naming Files").
_FORBIDDEN_CHARACTERS = re.compile(r'[<>:"|?*\\\x00-\x1f\x7f]|[\udc80-\udcff]|[. ]+$')
_WINDOWS_DEVICE = re.compile(r"(con|prn|aux|nul|com[1-9]|lpt[1-9])(\.|$)", re.IGNORECASE)


def render_output_name(
    template: str,
    *,
    relative: Path,
    image_format: Format,
    rule: str,
    task_type: int,
    task_id: str | None,
    job_id: int,
    width: int,
    height: int,
    now: datetime,
) -> PurePath:
    """Return the path of a result below its outbox, including the source's subfolder.

    ``template`` is the rule's `filename` (contract: fields stem, ext, name, rule, type, task_id, job_id, width, height,
    date, time; "/" makes folders). ``relative`` is the source's path below the inbox. ``image_format``, ``width`` and
    ``height`` are the result's. ``now`` is local time. Raises ValueError for a template that the configuration should
    have refused.

    The name always ends in an extension that fits the format; if the template gives none, or a wrong one, it is added
    ("cat.jpg.png"). In a component that is empty or begins with a dot, "_" takes its place. A component of more than
    255 bytes loses the end of its stem. Names that are not UTF-8 keep their bytes.
    """
    fields = {
        "stem": relative.stem,
        "ext": _choose_extension(relative, image_format),
        "name": relative.name,
        "rule": rule,
        "type": str(task_type),
        "task_id": _sanitize_word(task_id or ""),
        "job_id": str(job_id),
        "width": str(width),
        "height": str(height),
        "date": now.strftime("%Y-%m-%d"),
        "time": now.strftime("%H%M%S"),
    }
    return _render_template(template, fields, relative.parent, image_format)


def _render_template(template: str, fields: dict[str, str], subfolder: Path, image_format: Format) -> PurePath:
    folders = [part for part in subfolder.parts if part != "."]
    if subfolder.is_absolute() or ".." in folders:
        raise ValueError(f"not a path below an inbox: {subfolder}")
    *above, last = [_render_part(part, fields) for part in template.split("/")]
    last = _sanitize_part(last)
    if not image_format.allows_suffix(PurePath(last).suffix):
        last = _sanitize_part(f"{last}.{fields['ext']}")
    return PurePath(*folders, *(_sanitize_part(part) for part in above), last)


def add_number(name: PurePath, number: int) -> PurePath:
    """Return ``name`` with a number, for when it is taken: "cat.jpg" -> "cat-1.jpg"."""
    suffix = _real_suffix(name.name)
    return name.with_name(_truncate_stem(name.name.removesuffix(suffix), f"-{number}{suffix}"))


def sidecar_name(name: PurePath, ending: str) -> PurePath:
    """Return the name of a sidecar: "cat.jpg" with ".error.json" -> "cat.jpg.error.json".

    If that is too long, the name is cut, and a checksum of it keeps it apart from others that begin alike.
    """
    whole = name.name + ending
    if len(os.fsencode(whole)) <= NAME_MAX:
        return name.with_name(whole)
    return name.with_name(_truncate_stem(name.name, f"~{zlib.crc32(os.fsencode(name.name)):08x}{ending}"))


def make_portable(name: PurePath) -> PurePath:
    """Return a form of ``name`` that nearly every file system accepts, to be tried after ``name`` was refused.

    Characters that Windows refuses become "_" ("12:30?.jpg" -> "12_30_.jpg"), and so do bytes that are not UTF-8. A
    component of more than 143 bytes is cut to 120, so that a number and a sidecar's ending still fit. A portable name
    is returned unchanged.
    """
    return PurePath(*map(_make_part_portable, name.parts))


def _make_part_portable(part: str) -> str:
    part = _FORBIDDEN_CHARACTERS.sub("_", part)
    if _WINDOWS_DEVICE.match(part):
        part = f"_{part}"
    if len(os.fsencode(part)) <= _PORTABLE_MAX:
        return part
    suffix = _real_suffix(part)
    return _FORBIDDEN_CHARACTERS.sub("_", _truncate_stem(part.removesuffix(suffix), suffix, _PORTABLE_CUT))


def _choose_extension(relative: Path, image_format: Format) -> str:
    own = relative.suffix.removeprefix(".")
    return own if image_format.allows_suffix(own) else image_format.extension


def _render_part(part: str, fields: dict[str, str]) -> str:
    pieces: list[str] = []
    for literal, field, spec, conversion in string.Formatter().parse(part):
        pieces.append(literal)
        if field is None:
            continue
        if field not in fields or spec or conversion:
            raise ValueError(f"unknown field in the file name: {{{field}}}")
        pieces.append(fields[field])
    return "".join(pieces)


def _sanitize_word(word: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "", word)[:_TASK_ID_MAX] or "_"


def _sanitize_part(part: str) -> str:
    part = _replace_surrogates(part).replace("\0", "_").replace("/", "_")
    if not part or part.startswith("."):
        part = f"_{part[1:]}"
    suffix = _real_suffix(part)
    return _truncate_stem(part.removesuffix(suffix), suffix)


def _replace_surrogates(text: str) -> str:
    """Return the text with "_" for lone surrogates that represent no byte and cannot be part of a file name."""
    return re.sub("[\ud800-\udc7f\udd00-\udfff]", "_", text)


def _real_suffix(name: str) -> str:
    """Return the extension with its dot, or "" if it is too long to be one."""
    suffix = PurePath(name).suffix
    return suffix if len(os.fsencode(suffix)) <= 16 else ""


def _truncate_stem(stem: str, ending: str, limit: int = NAME_MAX) -> str:
    """Return ``stem`` + ``ending`` in at most ``limit`` bytes; the stem is cut between two characters."""
    raw = os.fsencode(stem)
    room = limit - len(os.fsencode(ending))
    if len(raw) > room:
        while room > 0 and raw[room] & 0xC0 == 0x80:
            room -= 1
        raw = raw[:room]
    return os.fsdecode(raw) + ending
