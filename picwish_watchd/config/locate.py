"""Which file is the configuration, and where the journal is where that does not say."""

import os
from collections.abc import Mapping
from pathlib import Path

from picwish_watchd.errors import ConfigError

SYSTEM_CONFIG = Path("/etc/picwish-watchd/config.yaml")
#: where the file does not say
DEFAULT_JOURNAL = Path("/var/lib/picwish-watchd/journal.db")


def find_config_file(explicit: Path | None, environ: Mapping[str, str], cwd: Path) -> Path:
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
    if own := _user_config_folder(environ):
        places.append(own / "picwish-watchd" / "config.yaml")
    places.append(SYSTEM_CONFIG)
    for place in places:
        if os.path.lexists(place):
            return place
    looked = ", ".join(map(str, places))
    raise ConfigError(
        f"no configuration file; looked for -c FILE, $PICWISH_WATCHD_CONFIG, {looked}",
        hint="write one (the README has a short one to begin with), or try `picwish-watchd demo`, which needs none",
    )


def _user_config_folder(environ: Mapping[str, str]) -> Path | None:
    configured = environ.get("XDG_CONFIG_HOME", "")
    if os.path.isabs(configured):
        return Path(configured)
    return Path(environ["HOME"], ".config") if environ.get("HOME") else None
