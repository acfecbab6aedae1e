"""The file at a glance: neither YAML nor the schema is loaded, which takes longer than all else that `status` does."""

import importlib.util
import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

from picwish_watchd.config.locate import DEFAULT_JOURNAL

# bytes; `load` says more of a file that is larger
_MAX_SIZE = 2**20
# at most
_MAX_CANDIDATES = 5
#: A key of that name as most people write it, at the top or elsewhere; of what is written otherwise nothing is guessed.
_JOURNAL_KEY = re.compile(rb"""^[^#\n]*?\bjournal["']?[ \t]*:[ \t]*(["']?)([^"'\n\0#,{}]+)\1""", re.MULTILINE)


class Fingerprint(NamedTuple):
    """A file that was read and not judged. Whoever judged these bytes at this place knows all that they say."""

    #: absolute
    file: Path
    #: `digest_of` its bytes
    digest: str
    #: where its journal may be: guesses, for the daemon that runs there to confirm
    journal_candidates: tuple[Path, ...]


def compute_digest(content: bytes) -> str:
    """Tells whether two files say the same: 64 bits, as Python tells by them whether a module is still its source.

    No more than that: SHA-256 would load a library of cryptography, a tenth of the time that `status` takes.
    """
    return importlib.util.source_hash(content).hex()


def read_fingerprint(file: Path) -> Fingerprint | None:
    """What can be seen of it; None where it cannot be read, of which `load` says more."""
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
    named = [os.fsdecode(found.strip()) for _, found in _JOURNAL_KEY.findall(content)] or [os.fspath(DEFAULT_JOURNAL)]
    places = [
        Path(os.path.normpath(os.path.join(os.path.dirname(absolute), place))) for place in named[:_MAX_CANDIDATES]
    ]
    return Fingerprint(Path(absolute), compute_digest(content), tuple(place for place in places if place.name))
