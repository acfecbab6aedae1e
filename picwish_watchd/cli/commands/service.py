"""``service``: write, show or remove the systemd unit of this installation and configuration."""

import argparse
import grp
import os
import pwd
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from picwish_watchd.cli.loading import resolve_config
from picwish_watchd.cli.systemd_unit import SystemdUnit, build_unit, is_own_unit, sign_unit
from picwish_watchd.config.model import Config
from picwish_watchd.config.notifiers import Command
from picwish_watchd.errors import UsageError
from picwish_watchd.fs.hang_guard import call_with_timeout
from picwish_watchd.outbox.availability import describe_hang
from picwish_watchd.wording import printable_path

_UNIT_FOLDER = Path("/etc/systemd/system")
# Systemd allows 255 characters for the whole name of a unit.
_SERVICE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}", re.ASCII)
# Names that useradd(8) accepts.
_ACCOUNT_NAME = re.compile(r"[a-z_][a-z0-9_-]*", re.ASCII)


def run(args: argparse.Namespace) -> int:
    """Install, uninstall or show the unit. With ``--dry-run``, only print what would be done."""
    args.name = args.name.removesuffix(".service")
    if not _SERVICE_NAME.fullmatch(args.name):
        hint = "use at most 200 letters, digits, '_', '.' and '-'; begin with a letter, a digit or '_'"
        raise UsageError(f"{args.name!a} is not a valid name of a service", hint=hint)
    if args.action == "uninstall":
        return _uninstall(args)
    config = resolve_config(args)
    unit = _unit_from_args(args, config)
    if args.action == "show":
        print(sign_unit(unit), end="")
        return 0
    return _install(args, config, unit)


def _unit_from_args(args: argparse.Namespace, config: Config) -> SystemdUnit:
    group = args.group or args.user
    for account in (args.user, group):
        if not _ACCOUNT_NAME.fullmatch(account):
            raise UsageError(f"{account!a} is not a valid name of a user or group", hint="the default is picwish")
    visible_paths = [
        Path(sys.prefix),
        Path(sys.base_prefix),
        *_notifier_programs(config),
        *(file.path for file in config.secret_files()),
    ]
    return build_unit(config, _own_program(), user=args.user, group=group, visible_paths=visible_paths)


def _notifier_programs(config: Config) -> list[Path]:
    """Return the programs that `notify:` runs and names by their path."""
    return [Path(each.run[0]) for each in config.notify if isinstance(each, Command) and "/" in each.run[0]]


def _own_program() -> list[Path | str]:
    """Return the command that runs this installation: the script beside the interpreter, or ``python -m``."""
    script = Path(sys.executable).with_name("picwish-watchd")
    if os.access(script, os.X_OK):
        return [script]
    return [Path(sys.executable), "-m", "picwish_watchd"]


def _install(args: argparse.Namespace, config: Config, unit: SystemdUnit) -> int:
    file = _unit_file(args)
    is_update = _has_own_unit(file)
    if args.dry_run:
        print(f"would write {printable_path(file)}:", file=sys.stderr)
        print(sign_unit(unit), end="")
    else:
        _check_can_write(args, "install")
        _write_unit(file, sign_unit(unit))
        print(f"wrote {printable_path(file)}")
    print(f"  runs    {printable_path(unit.program)} run --config {printable_path(unit.config)}", file=sys.stderr)
    print(f"  as      user {unit.user}, group {unit.group}", file=sys.stderr)
    print(f"  writes  {printable_path(', '.join(map(str, unit.folders)))}", file=sys.stderr)
    print(f"          {unit.writable_note}", file=sys.stderr)
    if unit.key_file is not None:
        print(
            f"  key     {printable_path(unit.key_file)}: systemd hands it over, so only root needs to read it",
            file=sys.stderr,
        )
    for note in _collect_notes(config, unit):
        print(f"note: {printable_path(note)}", file=sys.stderr)
    print("next:", file=sys.stderr)
    for line in _next_commands(args, unit, is_update=is_update):
        print(f"  {printable_path(line)}", file=sys.stderr)
    return 0


def _uninstall(args: argparse.Namespace) -> int:
    file = _unit_file(args)
    if not os.path.lexists(file):
        raise UsageError(f"there is no {file}", hint="choose it with --name and --unit-dir")
    _has_own_unit(file)
    if os.path.lexists(file.parent / "multi-user.target.wants" / file.name):
        raise UsageError(f"{args.name} is still enabled", hint=f"first run: systemctl disable --now {args.name}")
    if args.dry_run:
        print(f"would remove {printable_path(file)}")
        return 0
    _check_can_write(args, "uninstall")
    os.unlink(file)
    print(f"removed {printable_path(file)}; configuration, key, journal and folders are kept")
    print(f"next:\n  systemctl stop {args.name}   # if it still runs\n  systemctl daemon-reload", file=sys.stderr)
    return 0


def _unit_file(args: argparse.Namespace) -> Path:
    folder: Path = args.unit_dir or _UNIT_FOLDER
    return folder.absolute() / f"{args.name}.service"


def _has_own_unit(file: Path) -> bool:
    """Return whether ``file`` is a unit of ours. Raises `UsageError` for one that somebody else wrote or changed."""
    if not os.path.lexists(file):
        return False
    try:
        is_ours = not file.is_symlink() and file.is_file() and is_own_unit(file.read_text("utf-8", "replace"))
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    if not is_ours:
        raise UsageError(
            f"{file} was not written by `service install`, or was changed afterwards; it is left as it is",
            hint=f"move it away, or choose another --name; put own changes into `systemctl edit {file.stem}`",
        )
    return True


def _check_can_write(args: argparse.Namespace, action: str) -> None:
    """Raise `UsageError` unless systemd runs this machine or ``--unit-dir`` is given, and the folder is writable."""
    if args.unit_dir is None and not os.path.isdir("/run/systemd/system"):
        raise UsageError(
            "systemd does not run this machine",
            hint="let the service manager of this machine run `picwish-watchd run` in the foreground, and start it "
            "again unless it ends with exit code 0, 74 or 78; `service show` prints the unit for another machine",
        )
    folder = args.unit_dir or _UNIT_FOLDER
    if not os.access(folder, os.W_OK | os.X_OK):
        program = shlex.join(str(word) for word in _own_program())
        reason = "there is no such folder" if not os.path.isdir(folder) else "only root may do that"
        raise UsageError(
            f"{folder} cannot be written to: {reason}",
            hint=f"sudo {program} service {action} ...; `--dry-run` shows what would be done",
        )


def _write_unit(file: Path, text: str) -> None:
    part = file.with_name(f".{file.name}.part")
    try:
        part.write_text(text, "utf-8")
        part.chmod(0o644)
        part.replace(file)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UsageError(f"{file} cannot be written: {error.strerror}") from None


def _collect_notes(config: Config, unit: SystemdUnit) -> Iterator[str]:
    """Yield what will keep the service from working, as far as it can be seen now."""
    if config.api.key is not None:
        yield f"the key is in {config.path} itself; better put it into a file of its own, named by api.key_file"
    elif unit.key_file is not None and not os.path.exists(unit.key_file):
        yield f"there is no key file {unit.key_file} yet, and without it the service does not start"
    for folder in unit.folders:
        exists = call_with_timeout(partial(os.path.isdir, folder))
        if exists is None:
            yield f"{folder}: {describe_hang()}"
        elif not exists:
            yield f"{folder} does not exist yet: unless it is a mount, make it before the service starts"
    assert config.path is not None
    for path in (Path(sys.base_prefix), Path(_own_program()[0]), config.path, *_notifier_programs(config)):
        obstacle = _find_inaccessible(path, unit)
        if obstacle is not None:
            yield f"the user {unit.user} cannot reach {path}: {obstacle} is missing, or closed to others"
    for file in config.secret_files():
        if _find_inaccessible(file.path, unit) is not None:
            yield (
                f"the user {unit.user} cannot read {file.path} ({file.key}): chgrp {unit.group} it and chmod 0640 it, "
                f"or let systemd hand it over, by `systemctl edit`: LoadCredential={file.path.name}:{file.path}"
            )


def _find_inaccessible(path: Path, unit: SystemdUnit) -> Path | None:
    """Return the first of the parents of ``path`` and itself that the unit's user cannot access, or None."""
    try:
        user: int | None = pwd.getpwnam(unit.user).pw_uid
        group: int | None = grp.getgrnam(unit.group).gr_gid
    except KeyError:
        user = group = None
    for place in (*reversed(path.parents), path):
        try:
            status = os.stat(place)
        except OSError:
            return place
        need = 0o4 if place == path and os.path.isfile(place) else 0o1
        shift = 6 if status.st_uid == user else 3 if status.st_gid == group else 0
        if user != 0 and not status.st_mode >> shift & need:
            return place
    return None


def _next_commands(args: argparse.Namespace, unit: SystemdUnit, *, is_update: bool) -> Iterator[str]:
    if not _is_known_account(grp.getgrnam, unit.group) and unit.group != unit.user:
        yield f"groupadd --system {unit.group}"
    if not _is_known_account(pwd.getpwnam, unit.user):
        group = "--user-group" if unit.group == unit.user else f"--gid {unit.group}"
        yield f"useradd --system {group} --no-create-home --shell /usr/sbin/nologin {unit.user}"
    yield "systemctl daemon-reload"
    yield f"systemctl restart {args.name}" if is_update else f"systemctl enable --now {args.name}"
    yield f"systemctl status {args.name}"


def _is_known_account(look_up: Callable[[str], object], name: str) -> bool:
    try:
        look_up(name)
    except KeyError:
        return False
    return True
