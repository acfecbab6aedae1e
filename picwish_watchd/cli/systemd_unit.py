"""Render systemd units: one template for those in ``systemd/`` and for the one that `service install` writes."""

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from picwish_watchd.config.model import Config
from picwish_watchd.config.schema import Rule
from picwish_watchd.errors import UsageError
from picwish_watchd.fs.hang_guard import resolve_paths

# Units of earlier versions are recognised by it: it must not change.
_SIGNATURE_PREFIX = "# Written by `picwish-watchd service install`; sha256 of the lines below: "
# The folder in which systemd makes a StateDirectory= (systemd.exec(5)).
_STATE_ROOT = Path("/var/lib")
# Folders that ProtectHome= hides.
_HOME_ROOTS = ("/home", "/root", "/run/user")
# Folders that PrivateTmp= hides.
_TMP_ROOTS = ("/tmp", "/var/tmp")  # noqa: S108
#: Folders that a service must not be able to write to as a whole: it would not be confined any more.
_SYSTEM_FOLDERS = {
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/lib64",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/run/user",
    "/sbin",
    "/sys",
    "/tmp",  # noqa: S108
    "/usr",
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/log",
    "/var/spool",
    "/var/tmp",  # noqa: S108
}
_DESCRIPTION = "PicWish hot folders: enhance what is dropped into the inboxes"


@dataclass(frozen=True, slots=True)
class SystemdUnit:
    """The values of a unit for one installation. Texts are quoted for systemd: see `quote_path`."""

    header: str
    description: str = _DESCRIPTION
    program: str = "/opt/picwish-watchd/bin/picwish-watchd"
    config: str = "/etc/picwish-watchd/config.yaml"
    key: str | None = "/etc/picwish-watchd/api.key"
    user: str = "picwish"
    group: str = "picwish"
    #: Folder of the journal below /var/lib; None if the journal is elsewhere.
    state: str | None = "picwish-watchd"
    writable_paths: tuple[str, ...] = ("-/srv/nas",)
    writable_note: str = (
        "ONE common parent of all inboxes, outboxes and archives: two entries would be two mounts, and renames\n"
        "# between them fail. A folder that appears after the start of the service is writable only if it is a mount."
    )
    #: ``writable_paths`` as plain paths, for people.
    folders: tuple[Path, ...] = ()
    #: ``key`` as a plain path, for people.
    key_file: Path | None = None
    hides_home: bool = True
    hides_tmp: bool = True

    def render(self) -> str:
        """Return the text of the unit."""
        state = f"StateDirectory={self.state}\nStateDirectoryMode=0750" if self.state else "# The journal: see below."
        key = f"LoadCredential=picwish_api_key:{self.key}" if self.key else "# The API key is in the configuration."
        home = (
            "ProtectHome=yes"
            if self.hides_home
            else "# A folder that the service needs is there.\nProtectHome=read-only"
        )
        tmp = "PrivateTmp=yes" if self.hides_tmp else "# A folder that the service needs is in /tmp.\nPrivateTmp=no"
        parts = {
            "HEADER": self.header,
            "DESCRIPTION": self.description,
            "PROGRAM": self.program,
            "CONFIG": self.config,
            "USER": self.user,
            "GROUP": self.group,
            "STATE": state,
            "KEY": key,
            "HOME": home,
            "TMP": tmp,
            "WRITABLE": f"# {self.writable_note}\nReadWritePaths={' '.join(self.writable_paths)}",
        }
        template = (files(__package__) / "texts/service.unit").read_text("utf-8")
        return re.sub(r"@([A-Z]+)@", lambda match: parts[match[1]], template)


#: The units in ``systemd/``: one service, and a template for several configurations, each with a name.
SHIPPED_UNIT = SystemdUnit(
    '# Install: see "As a service" in docs/installation.md. Set ReadWritePaths=, User= and Group= for your folders.'
)
SHIPPED_TEMPLATE_UNIT = replace(
    SHIPPED_UNIT,
    header=f"{SHIPPED_UNIT.header}\n"
    "# Several services: picwish-watchd@NAME reads /etc/picwish-watchd/NAME.yaml and takes the key from NAME.key\n"
    "# beside it. NAME.yaml must name a journal of its own: /var/lib/picwish-watchd/NAME/journal.db",
    description=f"{_DESCRIPTION} (%i)",
    config="/etc/picwish-watchd/%i.yaml",
    key="/etc/picwish-watchd/%i.key",
    state="picwish-watchd/%i",
)


def sign_unit(unit: SystemdUnit) -> str:
    """Return the unit's text below a first line by which `is_own_unit` recognises it."""
    text = replace(unit, header="# Put your own changes into a drop-in: `systemctl edit` makes one.").render()
    return f"{_SIGNATURE_PREFIX}{hashlib.sha256(text.encode()).hexdigest()}\n{text}"


def is_own_unit(text: str) -> bool:
    """Return whether `sign_unit` made this text and it is unchanged since."""
    first, _, rest = text.partition("\n")
    return first == f"{_SIGNATURE_PREFIX}{hashlib.sha256(rest.encode()).hexdigest()}"


def quote_path(path: str | Path, *, prefix: str = "", command: bool = False) -> str:
    """Return a path as one word of a unit (systemd.syntax(7)). ``command``: the word is for an Exec line.

    Raises `UsageError` for control characters and names that are not UTF-8: a unit cannot contain them.
    """
    text = prefix + escape_path(path)
    if command:
        text = text.replace("$", "$$")
    if re.fullmatch(r"[^\s\"'\\;]+", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def escape_path(path: str | Path) -> str:
    """Return a path as the rest of a line of a unit. Raises `UsageError` like `quote_path`."""
    text = os.fspath(path)
    if not text.isprintable():
        raise UsageError(
            f"the path {text!a} cannot be written in a systemd unit", hint="rename it, without control characters"
        )
    return text.replace("%", "%%")


def build_unit(
    config: Config, program: Sequence[Path | str], *, user: str, group: str, visible_paths: Iterable[Path]
) -> SystemdUnit:
    """Build the unit that runs ``program`` (a path and its arguments) with this configuration.

    The service must be able to read ``visible_paths``, too. Raises `UsageError` if it would have to write to a folder
    of the system.
    """
    assert config.path is not None
    folders, note = find_writable_folders(config.rules)
    state = config.journal.parent
    is_state_directory = (
        state.is_relative_to(_STATE_ROOT) and state != _STATE_ROOT and re.fullmatch(r"[\w./@-]+", str(state))
    )
    if not is_state_directory and not any(state.is_relative_to(folder) for folder in folders):
        folders.append(_check_not_system_folder(state))
        note += ("; " if note else "") + "besides, the journal's folder"
    needed = [*folders, state, config.path, *visible_paths]
    words = [quote_path(word, command=True) for word in program]
    key = config.api.key_file
    if key is None and config.api.key is None:
        key = config.path.with_name("api.key")
    return SystemdUnit(
        header="",
        description=f"{_DESCRIPTION} (%p)",
        program=" ".join(words),
        config=quote_path(config.path, command=True),
        key=None if key is None else escape_path(key),
        user=user,
        group=group,
        state=str(state.relative_to(_STATE_ROOT)) if is_state_directory else None,
        writable_paths=tuple(quote_path(folder, prefix="-") for folder in folders),
        writable_note=note,
        folders=tuple(folders),
        key_file=key,
        hides_home=not _is_any_below(needed, _HOME_ROOTS),
        hides_tmp=not _is_any_below(needed, _TMP_ROOTS),
    )


def find_writable_folders(rules: Sequence[Rule]) -> tuple[list[Path], str]:
    """Return the folders that a service with these rules must be able to write to, links resolved, and a note why.

    This is one common parent if possible: each entry is a mount of its own, and files cannot be renamed between mounts.
    If that would be a folder of the system, each rule gets one. Raises `UsageError` if even that is one.
    """
    by_rule = [list(map(Path, resolve_paths(rule.folders().values()).values())) for rule in rules]
    common = _common_parent([folder for folders in by_rule for folder in folders])
    if str(common) not in _SYSTEM_FOLDERS:
        return [common], "One parent of all folders: renames between two entries would fail."
    entries: set[Path] = set()
    for folders in by_rule:
        parent = _common_parent(folders)
        entries.update(folders if str(parent) in _SYSTEM_FOLDERS else [parent])
    for entry in entries:
        _check_not_system_folder(entry)
    top_entries = [
        entry for entry in entries if not any(entry != other and entry.is_relative_to(other) for other in entries)
    ]
    note = (
        f"Several, because their only common parent is {common}; originals are copied from one to another, not renamed."
    )
    return sorted(top_entries), note


def _common_parent(folders: Sequence[Path]) -> Path:
    return Path(os.path.commonpath(folders))


def _check_not_system_folder(folder: Path) -> Path:
    if str(folder) in _SYSTEM_FOLDERS:
        raise UsageError(
            f"the service would have to write to {folder}, a folder of the system",
            hint="move your folders one level down, such as to /srv/picwish",
        )
    return folder


def _is_any_below(paths: Iterable[Path], roots: Iterable[str]) -> bool:
    given = list(paths)
    both = [*given, *map(Path, resolve_paths(given).values())]
    return any(path.is_relative_to(root) for path in both for root in roots)
