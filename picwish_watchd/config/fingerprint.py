"""Identify a configuration file without parsing it.

Loading YAML and the schema would take longer than all else that `status` does.
"""

import importlib.util
import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

from picwish_watchd.config.locate import DEFAULT_JOURNAL

#: Bytes. `load_config` reports a file that is larger.
_MAX_SIZE = 2**20
#: Journals that are looked for.
_MAX_CANDIDATES = 5
#: A key `journal` as most people write it, at the top or elsewhere. Other ways to write it are not recognised.
_JOURNAL_KEY = re.compile(rb"""^[^#\n]*?\bjournal["']?[ \t]*:[ \t]*(["']?)([^"'\n\0#,{}]+)\1""", re.MULTILINE)


class Fingerprint(NamedTuple):
    """The identity of a file's content. The daemon that loaded a file with this fingerprint knows all its values."""

    #: Absolute path.
    file: Path
    #: `compute_digest` of its bytes.
    digest: str
    #: Guesses of where its journal is; the report of a daemon that runs on one of them confirms it.
    journal_candidates: tuple[Path, ...]


def compute_digest(content: bytes) -> str:
    """Return 64 bits of the content as hexadecimal digits, by which two versions of a file differ.

    Python compares a module with its source by the same hash. SHA-256 would load a cryptography library, which takes a
    tenth of the time of `status`.
    """
    return importlib.util.source_hash(content).hex()


def read_fingerprint(file: Path) -> Fingerprint | None:
    """Return the fingerprint of a file, or None if it cannot be read; `load_config` reports why."""
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):
            return None
        with open(file, "rb") as opened:
            content = opened.read(_MAX_SIZE + 1)
    except (OSError, ValueError):
        return None
    if len(content) > _MAX_SIZE:
        return None
    absolute = os.path.abspath(file)
    values = [os.fsdecode(value.strip()) for _, value in _JOURNAL_KEY.findall(content)] or [os.fspath(DEFAULT_JOURNAL)]
    paths = [
        Path(os.path.normpath(os.path.join(os.path.dirname(absolute), value))) for value in values[:_MAX_CANDIDATES]
    ]
    return Fingerprint(Path(absolute), compute_digest(content), tuple(path for path in paths if path.name))
