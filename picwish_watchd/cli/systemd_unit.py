"""The text of a systemd unit: one template for what ``systemd/`` ships and for what `service install` writes."""

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

_SIGNATURE_PREFIX = "# Written by `picwish-watchd service install`; sha256 of the lines below: "
# where systemd makes a StateDirectory (systemd.exec(5))
_STATE_ROOT = Path("/var/lib")
# what ProtectHome= hides
_HOME_ROOTS = ("/home", "/root", "/run/user")
_TMP_ROOTS = ("/tmp", "/var/tmp")  # noqa: S108 - what PrivateTmp= hides
#: A service that may write to one of these as a whole would be confined no more.
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
    """What a unit says of one installation. All texts as systemd reads them: see `quoted`."""

    header: str
    description: str = _DESCRIPTION
    program: str = "/opt/picwish-watchd/bin/picwish-watchd"
    config: str = "/etc/picwish-watchd/config.yaml"
    key: str | None = "/etc/picwish-watchd/api.key"
    user: str = "picwish"
    group: str = "picwish"
    #: below /var/lib; None: the journal is elsewhere
    state: str | None = "picwish-watchd"
    writable_paths: tuple[str, ...] = ("-/srv/nas",)
    writable_note: str = (
        "ONE common parent of all inboxes, outboxes, archives: two entries would be two mounts, and renames\n"
        "# between them fail. A folder that comes later than the service is writable only if it is a mount."
    )
    #: the same as paths, for people
    folders: tuple[Path, ...] = ()
    #: likewise
    key_file: Path | None = None
    hides_home: bool = True
    hides_tmp: bool = True

    def render(self) -> str:
        """The whole unit."""
        state = f"StateDirectory={self.state}\nStateDirectoryMode=0750" if self.state else "# The journal: see below."
        key = f"LoadCredential=picwish_api_key:{self.key}" if self.key else "# The key stands in the configuration."
        home = "ProtectHome=yes" if self.hides_home else "# Something that it needs lies there.\nProtectHome=read-only"
        tmp = "PrivateTmp=yes" if self.hides_tmp else "# Something that it needs lies in /tmp.\nPrivateTmp=no"
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
        return re.sub(r"@([A-Z]+)@", lambda found: parts[found[1]], template)


#: What is shipped: a service as the README installs it, and one for several configurations, each with its name.
SHIPPED_UNIT = SystemdUnit(
    '# Install: see "As a service" in README.md. Edit ReadWritePaths=, User= and Group= to your folders.'
)
SHIPPED_TEMPLATE_UNIT = replace(
    SHIPPED_UNIT,
    header=f"{SHIPPED_UNIT.header}\n"
    "# Several services: picwish-watchd@NAME reads /etc/picwish-watchd/NAME.yaml, takes the key from NAME.key\n"
    "# beside it, and NAME.yaml names a journal of its own: /var/lib/picwish-watchd/NAME/journal.db",
    description=f"{_DESCRIPTION} (%i)",
    config="/etc/picwish-watchd/%i.yaml",
    key="/etc/picwish-watchd/%i.key",
    state="picwish-watchd/%i",
)


def sign_unit(unit: SystemdUnit) -> str:
    """The unit's text under a first line by which `is_ours` knows it again."""
    text = replace(unit, header="# Your own changes belong into a drop-in: `systemctl edit` makes one.").render()
    return f"{_SIGNATURE_PREFIX}{hashlib.sha256(text.encode()).hexdigest()}\n{text}"


def is_own_unit(text: str) -> bool:
    """Whether `signed` made this text, and nobody has changed it since."""
    first, _, rest = text.partition("\n")
    return first == f"{_SIGNATURE_PREFIX}{hashlib.sha256(rest.encode()).hexdigest()}"


def quote_path(path: str | Path, *, prefix: str = "", command: bool = False) -> str:
    """A path as one word of a unit (systemd.syntax(7)), in an Exec line with ``command``.

    Raises `UsageError` for what no unit can hold: control characters, and names that are not UTF-8.
    """
    text = prefix + escape_path(path)
    if command:
        text = text.replace("$", "$$")
    if re.fullmatch(r"[^\s\"'\\;]+", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def escape_path(path: str | Path) -> str:
    """A path as the rest of a line of a unit."""
    text = os.fspath(path)
    if not text.isprintable():
        raise UsageError(f"the path {text!a} cannot stand in a systemd unit", hint="give it a plain name")
    return text.replace("%", "%%")


def build_unit(
    config: Config, program: Sequence[Path | str], *, user: str, group: str, seen: Iterable[Path]
) -> SystemdUnit:
    """The unit that runs ``program`` (a path and its arguments) with this configuration.

    ``seen`` are further paths that it must see. Raises `UsageError` where a folder cannot be opened to a service.
    """
    assert config.path is not None
    folders, note = find_writable_folders(config.rules)
    state = config.journal.parent
    inside = state.is_relative_to(_STATE_ROOT) and state != _STATE_ROOT and re.fullmatch(r"[\w./@-]+", str(state))
    if not inside and not any(state.is_relative_to(folder) for folder in folders):
        folders.append(_check_not_system_folder(state))
        note += ("; " if note else "") + "the journal's folder beside it"
    needed = [*folders, state, config.path, *seen]
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
        state=str(state.relative_to(_STATE_ROOT)) if inside else None,
        writable_paths=tuple(quote_path(folder, prefix="-") for folder in folders),
        writable_note=note,
        folders=tuple(folders),
        key_file=key,
        hides_home=not _is_any_below(needed, _HOME_ROOTS),
        hides_tmp=not _is_any_below(needed, _TMP_ROOTS),
    )


def find_writable_folders(rules: Sequence[Rule]) -> tuple[list[Path], str]:
    """The folders that a service with these rules must be able to write to, links followed, and why these.

    One common parent, for each entry is a mount of its own, and nothing can be renamed from one into another. Where
    that would be a folder of the system, one for each rule; raises `UsageError` where even that is one.
    """
    by_rule = [list(map(Path, resolve_paths(rule.folders().values()).values())) for rule in rules]
    whole = _common_parent([folder for folders in by_rule for folder in folders])
    if str(whole) not in _SYSTEM_FOLDERS:
        return [whole], "The one parent of all folders: renames between two entries would fail."
    entries: set[Path] = set()
    for folders in by_rule:
        parent = _common_parent(folders)
        entries.update(folders if str(parent) in _SYSTEM_FOLDERS else [parent])
    for entry in entries:
        _check_not_system_folder(entry)
    least = [entry for entry in entries if not any(entry != other and entry.is_relative_to(other) for other in entries)]
    note = f"Several, for their only common parent is {whole}; originals are copied from one to another, not renamed."
    return sorted(least), note


def _common_parent(folders: Sequence[Path]) -> Path:
    return Path(os.path.commonpath(folders))


def _check_not_system_folder(folder: Path) -> Path:
    if str(folder) in _SYSTEM_FOLDERS:
        raise UsageError(
            f"a service cannot be given {folder} to write to: that would open the system to it",
            hint="put the folder one level down, such as /srv/picwish",
        )
    return folder


def _is_any_below(paths: Iterable[Path], roots: Iterable[str]) -> bool:
    given = list(paths)
    both = [*given, *map(Path, resolve_paths(given).values())]
    return any(path.is_relative_to(root) for path in both for root in roots)
