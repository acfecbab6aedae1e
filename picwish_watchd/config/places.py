"""Which file is the configuration, and where its journal is: what is known before anything of it is judged."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from picwish_watchd.config.source import read
from picwish_watchd.config.texts import Home
from picwish_watchd.config.texts import path as path_of
from picwish_watchd.config.units import RefusedError
from picwish_watchd.errors import ConfigError

SYSTEM_WIDE = Path("/etc/picwish-watchd/config.yaml")
JOURNAL = Path("/var/lib/picwish-watchd/journal.db")  #: where the file does not say


@dataclass(frozen=True, slots=True)
class Glance:
    """A file that was read and not judged. Whoever judged these bytes at this place knows all that they say."""

    file: Path  #: absolute
    sha256: str  #: of its bytes
    journal: Path


def glance(file: Path) -> Glance | None:
    """The file at a glance, without the schema; None where nothing but `load` will do.

    That is where ``~`` or ``${VAR}`` stand in it, or where even this much is at fault. Raises `ConfigError` as `load`
    does where there is no file to be read, or no YAML in it.
    """
    document = read(file)
    if document.sha256 is None or document.faults:
        return None
    absolute = Path(os.path.abspath(file))
    try:
        journal = path_of(document.data.get("journal", os.fspath(JOURNAL)), Home(absolute.parent, {}))
    except RefusedError:
        return None
    return Glance(absolute, document.sha256, journal)


def find(explicit: Path | None, environ: Mapping[str, str], cwd: Path) -> Path:
    """The configuration file to load, absolute.

    ``explicit`` (``-c``) or else ``$PICWISH_WATCHD_CONFIG`` is the file, whether it exists or not. Otherwise the first
    that exists of ``./picwish-watchd.yaml``, ``$XDG_CONFIG_HOME/picwish-watchd/config.yaml`` (``~/.config`` where the
    variable is unset or relative, as the XDG Base Directory Specification says) and
    ``/etc/picwish-watchd/config.yaml``. Raises `ConfigError` that names the places if there is none.
    """
    cwd = Path(os.path.abspath(cwd))
    named = explicit or environ.get("PICWISH_WATCHD_CONFIG")
    if named:
        return Path(os.path.normpath(cwd / named))
    places = [cwd / "picwish-watchd.yaml"]
    if own := _own_folder(environ):
        places.append(own / "picwish-watchd" / "config.yaml")
    places.append(SYSTEM_WIDE)
    for place in places:
        if os.path.lexists(place):
            return place
    looked = ", ".join(map(str, places))
    raise ConfigError(f"no configuration file; looked for -c FILE, $PICWISH_WATCHD_CONFIG, {looked}")


def _own_folder(environ: Mapping[str, str]) -> Path | None:
    configured = environ.get("XDG_CONFIG_HOME", "")
    if os.path.isabs(configured):
        return Path(configured)
    return Path(environ["HOME"], ".config") if environ.get("HOME") else None
