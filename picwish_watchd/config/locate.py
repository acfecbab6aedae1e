"""Find the configuration file, and the place of the journal if the file does not name one."""

import os
from collections.abc import Mapping
from pathlib import Path

from picwish_watchd.errors import ConfigError

SYSTEM_CONFIG = Path("/etc/picwish-watchd/config.yaml")
#: The journal if the file names none.
DEFAULT_JOURNAL = Path("/var/lib/picwish-watchd/journal.db")


def find_config_file(explicit: Path | None, environ: Mapping[str, str], cwd: Path) -> Path:
    """Return the absolute path of the configuration file to load.

    ``explicit`` (``-c``) or else ``$PICWISH_WATCHD_CONFIG`` is the file, whether it exists or not. Otherwise it is the
    first that exists of ``./picwish-watchd.yaml``, ``$XDG_CONFIG_HOME/picwish-watchd/config.yaml`` (``~/.config`` if
    the variable is unset or relative, as the XDG Base Directory Specification says) and
    ``/etc/picwish-watchd/config.yaml``. Raises `ConfigError`, which names these places, if none exists.
    """
    cwd = Path(os.path.abspath(cwd))
    named = explicit or environ.get("PICWISH_WATCHD_CONFIG")
    if named:
        return Path(os.path.normpath(cwd / named))
    candidates = [cwd / "picwish-watchd.yaml"]
    if own := _user_config_folder(environ):
        candidates.append(own / "picwish-watchd" / "config.yaml")
    candidates.append(SYSTEM_CONFIG)
    for path in candidates:
        if os.path.lexists(path):
            return path
    searched = ", ".join(map(str, candidates))
    raise ConfigError(
        f"no configuration file; looked for -c FILE, $PICWISH_WATCHD_CONFIG, {searched}",
        hint="write one (the README has a short one to start from), or try `picwish-watchd demo`, which needs none",
    )


def _user_config_folder(environ: Mapping[str, str]) -> Path | None:
    configured = environ.get("XDG_CONFIG_HOME", "")
    if os.path.isabs(configured):
        return Path(configured)
    return Path(environ["HOME"], ".config") if environ.get("HOME") else None
