"""Names: from a template and a job's facts to a path below the outbox that no file system refuses and none escapes."""

import os
import re
import string
import zlib
from datetime import datetime
from pathlib import Path, PurePath

from picwish_watchd.images.formats import Format

# bytes of one component (limits.h: NAME_MAX; the same on ext4, XFS, btrfs, and nearly everywhere)
NAME_MAX = 255
# characters that are taken over of a word that the server gave
_TASK_ID_MAX = 64
# bytes of a name on the file systems that take the least (eCryptfs, as in encrypted NAS folders)
_PORTABLE_MAX = 143
# bytes: short enough there with a number, and with a sidecar's ending
_PORTABLE_CUT = 120
#: What Windows does not take, and so neither do SMB servers, NTFS, exFAT and vfat (Microsoft, "Naming Files").
_FORBIDDEN_CHARACTERS = re.compile(r'[<>:"|?*\\\x00-\x1f\x7f]|[\udc80-\udcff]|[. ]+$')
_WINDOWS_DEVICE = re.compile(r"(con|prn|aux|nul|com[1-9]|lpt[1-9])(\.|$)", re.IGNORECASE)


def render_output_name(
    template: str,
    *,
    relative: Path,
    format: Format,
    rule: str,
    type: int,
    task_id: str | None,
    job_id: int,
    width: int,
    height: int,
    now: datetime,
) -> PurePath:
    """The name of a result below its outbox, the source's subfolder included.

    ``template`` is the rule's `filename` (contract: fields stem, ext, name, rule, type, task_id, job_id, width, height,
    date, time; "/" makes folders); ``relative`` is the source's path below the inbox; ``format`` and the pixels are the
    result's; ``now`` is local time. Raises ValueError for a template that the configuration should have refused.

    The name always ends in an extension that fits the format: where the template gives none, or the wrong one, it is
    added ("cat.jpg.png"). A component that is empty or begins with a dot gets a "_" for it, one that is longer than 255
    bytes loses the end of its stem. Names that are not UTF-8 keep their bytes.
    """
    extension = _choose_extension(relative, format)
    fields = {
        "stem": relative.stem,
        "ext": extension,
        "name": relative.name,
        "rule": rule,
        "type": str(type),
        "task_id": _sanitize_word(task_id or ""),
        "job_id": str(job_id),
        "width": str(width),
        "height": str(height),
        "date": now.strftime("%Y-%m-%d"),
        "time": now.strftime("%H%M%S"),
    }
    folders = [part for part in relative.parent.parts if part != "."]
    if relative.is_absolute() or ".." in folders:
        raise ValueError(f"not a path below an inbox: {relative}")
    *above, last = [_render_part(part, fields) for part in template.split("/")]
    last = _sanitize_part(last)
    if not format.allows_suffix(PurePath(last).suffix):
        last = _sanitize_part(f"{last}.{extension}")
    return PurePath(*folders, *(_sanitize_part(part) for part in above), last)


def add_number(name: PurePath, number: int) -> PurePath:
    """The ``number``-th way out when ``name`` is taken: "cat.jpg" -> "cat-1.jpg"."""
    suffix = _real_suffix(name.name)
    return name.with_name(_truncate_stem(name.name.removesuffix(suffix), f"-{number}{suffix}"))


def sidecar_name(name: PurePath, ending: str) -> PurePath:
    """The name of a sidecar: "cat.jpg" with ".error.json" -> "cat.jpg.error.json".

    Where that is too long, the name is shortened, and a checksum of it keeps it apart from others that begin alike.
    """
    whole = name.name + ending
    if len(os.fsencode(whole)) <= NAME_MAX:
        return name.with_name(whole)
    return name.with_name(_truncate_stem(name.name, f"~{zlib.crc32(os.fsencode(name.name)):08x}{ending}"))


def make_portable(name: PurePath) -> PurePath:
    """The same name as nearly every file system takes it; to be tried where ``name`` itself was refused.

    What Windows does not take becomes "_" ("12:30?.jpg" -> "12_30_.jpg"), and so do bytes that are not UTF-8. A
    component of more than 143 bytes is cut to 120, so that a number and a sidecar's ending find room. What is portable
    already is answered as it is.
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


def _choose_extension(relative: Path, format: Format) -> str:
    own = relative.suffix.removeprefix(".")
    return own if format.allows_suffix(own) else format.extension


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
    """The text without lone surrogates that stand for no byte and so cannot be part of a file name."""
    return re.sub("[\ud800-\udc7f\udd00-\udfff]", "_", text)


def _real_suffix(name: str) -> str:
    """The extension with its dot, if it is one and not the end of a sentence."""
    suffix = PurePath(name).suffix
    return suffix if len(os.fsencode(suffix)) <= 16 else ""


def _truncate_stem(stem: str, ending: str, limit: int = NAME_MAX) -> str:
    """``stem`` and ``ending`` in at most ``limit`` bytes, the stem cut between two characters."""
    raw = os.fsencode(stem)
    room = limit - len(os.fsencode(ending))
    if len(raw) > room:
        while room > 0 and raw[room] & 0xC0 == 0x80:
            room -= 1
        raw = raw[:room]
    return os.fsdecode(raw) + ending
