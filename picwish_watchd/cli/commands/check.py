"""``check``: test whether ``run`` would work here; change and submit nothing."""

import argparse
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from picwish_watchd.cli.journal_views import is_missing
from picwish_watchd.cli.loading import resolve_config
from picwish_watchd.config.api_key import read_api_key
from picwish_watchd.config.model import Config
from picwish_watchd.config.notifiers import Command, Notifier, Webhook
from picwish_watchd.config.schema import OnFailure, OnSuccess, Rule
from picwish_watchd.errors import ConfigError, JournalError
from picwish_watchd.fs.hang_guard import call_with_timeout
from picwish_watchd.fs.mounts import mount_of
from picwish_watchd.journal.integrity import check_local_filesystem, check_not_deleted
from picwish_watchd.journal.locks import DaemonLock
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.outbox.availability import describe_hang, why_absent, why_not_writable, why_unavailable
from picwish_watchd.wording import pluralize, printable_path


@dataclass(frozen=True, slots=True)
class _CheckResult:
    """The result of one check. ``code`` is 0 if it passed, else the exit code for this failure."""

    code: int
    message: str
    hint: str | None = None


def run(args: argparse.Namespace) -> int:
    """Print a line for each check; the worst result is the exit code: 78, 74, 1 or 0."""
    config = resolve_config(args)
    results = [_CheckResult(0, f"configuration {config.path}: {pluralize(len(config.rules), 'rule')}")]
    results += [_CheckResult(0, f"warning: {warning}") for warning in config.warnings]
    results.append(_check_key(config))
    results += _check_http(config)
    results += _check_journal(config)
    for rule in config.rules:
        results.append(_check_with_timeout(f"inbox of {rule.name}", rule.inbox, partial(_check_inbox, rule)))
        results.append(_check_target_with_timeout(f"outbox of {rule.name}", rule.outbox, config.min_free))
        results += [
            _check_target_with_timeout(f"{name} of {rule.name}", folder, 0)
            for name, folder in (("archive", rule.archive), ("failed", rule.failed))
            if folder is not None
        ]
    results += [_check_notifier(number, notifier) for number, notifier in enumerate(config.notify, 1)]
    for result in results:
        print(f"{'FAIL' if result.code else 'ok  '}  {printable_path(result.message)}")
        if result.code and result.hint:
            print(f"      {printable_path(result.hint)}")
    return max(result.code for result in results)


def _check_key(config: Config) -> _CheckResult:
    try:
        read_api_key(config, os.environ)
    except ConfigError as error:
        return _CheckResult(error.exit_code, f"API key: {error.message}", error.hint)
    return _CheckResult(0, "API key: there is one (PicWish was not asked whether it is good)")


def _check_http(config: Config) -> Iterator[_CheckResult]:
    http = config.http
    if http is None:
        return
    if http.token_secret is not None:
        try:
            http.token_secret.read_secret()
            yield _CheckResult(0, f"token of http: there is one in {http.token_file}")
        except ConfigError as error:
            yield _CheckResult(error.exit_code, f"token of http: {error.message}", error.hint)
    # A daemon that runs listens at the address itself.
    if DaemonLock(config.journal).owner_pid() is None:
        from picwish_watchd.metrics.http_server import check_listen_address

        try:
            check_listen_address(http.listen)
            yield _CheckResult(0, f"address of http: {http.listen} can be listened on")
        except ConfigError as error:
            yield _CheckResult(1, error.message, error.hint)


def _check_notifier(number: int, notifier: Notifier) -> _CheckResult:
    """Check what can be checked without sending a message."""
    what = f"notifier {number}, {notifier.label}"
    if isinstance(notifier, Command) and shutil.which(notifier.run[0]) is None:
        hint = "correct its path, or chmod +x it"
        return _CheckResult(1, f"{what}: {notifier.run[0]} is not an executable program", hint)
    try:
        for file in notifier.secret_files:
            file.read()
        if isinstance(notifier, Webhook):
            notifier.read_url()
    except ConfigError as error:
        return _CheckResult(1, f"{what}: {error.message}", error.hint)
    return _CheckResult(0, f"{what}: `picwish-watchd notify test --to {number}` sends a test")


def _check_journal(config: Config) -> Iterator[_CheckResult]:
    path = config.journal
    try:
        check_local_filesystem(path)
        if not is_missing(path):
            reader = JournalReader.open(path)
            reader.check_integrity()
            reader.close()
            pid = DaemonLock(path).owner_pid()
            running = f", used by the daemon with pid {pid}" if pid is not None else ""
            yield _CheckResult(0, f"journal {path}: sound{running}")
        else:
            check_not_deleted(path)
            yield _CheckResult(0, f"journal {path}: none yet; the first `run` makes it")
    except JournalError as error:
        yield _CheckResult(error.exit_code, f"journal: {error.message}", error.hint)
    yield _check_target("folder of the journal", path.parent, config.min_free)


def _check_target_with_timeout(what: str, path: Path, min_free: int) -> _CheckResult:
    return _check_with_timeout(what, path, partial(_check_target, what, path, min_free))


def _check_with_timeout(what: str, path: Path, check: Callable[[], _CheckResult]) -> _CheckResult:
    """Run a check of a folder in a thread: its mount may hang without end, or be broken."""

    def check_safely() -> _CheckResult:
        try:
            return check()
        except OSError as error:
            return _CheckResult(1, f"{what}: {path}: {error.strerror or error}", "check the mount that it is on")

    return call_with_timeout(check_safely) or _fail_folder(what, path, describe_hang())


def _fail_folder(what: str, path: Path, reason: str) -> _CheckResult:
    """Return a failed check; ``reason`` is one of `outbox.availability`: "what is wrong; what to do about it"."""
    problem, _, advice = reason.partition("; ")
    return _CheckResult(1, f"{what}: {path}: {problem}", advice or "check the mount that it is on")


def _check_inbox(rule: Rule) -> _CheckResult:
    path = rule.inbox
    moves = rule.on_success is not OnSuccess.KEEP or rule.on_failure is not OnFailure.KEEP
    what = f"inbox of {rule.name}"
    if (reason := why_unavailable(path, None)) is not None:
        return _fail_folder(what, path, reason)
    try:
        os.scandir(path).close()
    except OSError as error:
        return _fail_folder(what, path, error.strerror or str(error))
    if moves and (problem := why_not_writable(path)) is not None:
        return _fail_folder(f"{what}, whose originals are to be moved or deleted", path, problem.reason)
    mount = mount_of(path)
    kind = f" on {mount.kind}" if mount is not None else ""
    is_network = mount is not None and mount.is_network
    note = "; polling only, because the kernel sees no changes that other machines make" if is_network else ""
    return _CheckResult(0, f"{what}: {path}{kind}{note}")


def _check_target(what: str, path: Path, min_free: int) -> _CheckResult:
    """Check a folder that is written to: it exists, or can be made because its parent exists."""
    if (reason := why_absent(path, None, seen=False)) is not None:
        return _fail_folder(what, path, reason)
    there = path if os.path.exists(path) else path.parent
    if (problem := why_not_writable(there, min_free)) is not None:
        return _fail_folder(what, there, problem.reason)
    free = shutil.disk_usage(there).free
    note = "" if there == path else "; it will be made"
    return _CheckResult(0, f"{what}: {path}, {free / 2**30:.1f} GiB free{note}")
