"""The file at a glance: neither YAML nor the schema is loaded, which takes longer than all else that `status` does."""

import importlib.util
import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

from picwish_watchd.config.locate import JOURNAL

# bytes; `load` says more of a file that is larger
_LARGEST = 2**20
# at most
_GUESSES = 5
#: A key of that name as most people write it, at the top or elsewhere; of what is written otherwise nothing is guessed.
_NAMED = re.compile(rb"""^[^#\n]*?\bjournal["']?[ \t]*:[ \t]*(["']?)([^"'\n\0#,{}]+)\1""", re.MULTILINE)


class Glance(NamedTuple):
    """A file that was read and not judged. Whoever judged these bytes at this place knows all that they say."""

    #: absolute
    file: Path
    #: `digest_of` its bytes
    digest: str
    #: where its journal may be: guesses, for the daemon that runs there to confirm
    journals: tuple[Path, ...]


def digest_of(content: bytes) -> str:
    """Tells whether two files say the same: 64 bits, as Python tells by them whether a module is still its source.

    No more than that: SHA-256 would load a library of cryptography, a tenth of the time that `status` takes.
    """
    return importlib.util.source_hash(content).hex()


def glance(file: Path) -> Glance | None:
    """What can be seen of it; None where it cannot be read, of which `load` says more."""
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):
            return None
        with open(file, "rb") as opened:
            content = opened.read(_LARGEST + 1)
    except (OSError, ValueError):
        return None
    if len(content) > _LARGEST:
        return None
    absolute = os.path.abspath(file)
    named = [os.fsdecode(found.strip()) for _, found in _NAMED.findall(content)] or [os.fspath(JOURNAL)]
    places = [Path(os.path.normpath(os.path.join(os.path.dirname(absolute), place))) for place in named[:_GUESSES]]
    return Glance(Path(absolute), digest_of(content), tuple(place for place in places if place.name))
