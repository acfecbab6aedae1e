"""Refuse combinations of valid keys that would lose images, pay for results again or disclose a secret."""

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from picwish_watchd.config.error_messages import KeyPath
from picwish_watchd.config.extras import install_hint
from picwish_watchd.config.notifiers import HTTPS_HINT, Apprise, Email, Notifier, SmtpSecurity, Webhook
from picwish_watchd.config.schema import Api, Http, IfExists, OnFailure, OnSuccess, Rule
from picwish_watchd.config.secret_files import API_KEY_CREDENTIAL, SecretFile
from picwish_watchd.config.strings import is_insecure_url
from picwish_watchd.config.units import format_duration
from picwish_watchd.fs.hang_guard import resolve_with_identity
from picwish_watchd.fs.mounts import device_locations

_FOLDER_KEYS = ("inbox", "outbox", "archive", "failed")


@dataclass(frozen=True, slots=True)
class Conflict:
    """A combination of keys that is refused."""

    #: The keys that cause it; the fault is reported at the first.
    key_paths: tuple[KeyPath, ...]
    found: str
    allowed: str


@dataclass(frozen=True, slots=True)
class _ConfiguredPath:
    """A path of the configuration, in the forms by which two paths can be the same place."""

    key_path: KeyPath
    path: Path
    #: The path as written, with its links resolved, as the place on its disk, and by its inode.
    identities: tuple[str, ...]
    #: Name of the rule, for messages.
    rule: str

    def is_within(self, container: "_ConfiguredPath") -> bool:
        """Return whether this is the other place or is inside it."""
        pairs = zip(self.identities, container.identities, strict=True)
        return any(mine == other or mine.startswith(other.rstrip("/") + "/") for mine, other in pairs)


def find_conflicts(api: Api, journal: Path, rules: Mapping[int, Rule]) -> Iterator[Conflict]:
    """Yield the conflicts among the API, the journal and the rules, which are given by their index in the file.

    No folder is read; links are followed and mounts are looked up.
    """
    yield from _find_exposed_key(api)
    yield from _find_duplicate_names(rules)
    for index, rule in rules.items():
        yield from _find_missing_targets(index, rule)
        yield from _find_short_settle_timeout(index, rule)
    identities = _resolve_identities([journal, *(path for rule in rules.values() for path in rule.folders().values())])
    folders: dict[str, list[_ConfiguredPath]] = {key: [] for key in _FOLDER_KEYS}
    for index, rule in rules.items():
        for key, path in rule.folders().items():
            folders[key].append(_ConfiguredPath(("rules", index, key), path, identities[path], rule.name))
    yield from _find_overlapping_inboxes(folders["inbox"])
    for key in ("outbox", "archive", "failed"):
        for folder in folders[key]:
            yield from _find_feedback_loops(folder, folders["inbox"])
    overwriting = {index for index, rule in rules.items() if rule.if_exists is IfExists.OVERWRITE}
    for folder in (*folders["archive"], *folders["failed"]):
        yield from _find_original_collisions(folder, folders["outbox"], overwriting)
    yield from _find_journal_in_inbox(_ConfiguredPath(("journal",), journal, identities[journal], ""), folders["inbox"])


def _resolve_identities(paths: Collection[Path]) -> dict[Path, tuple[str, ...]]:
    """Return the `_ConfiguredPath.identities` of each path.

    What cannot be found out, as a path does not exist or its file system does not answer, is the path as written.
    """
    resolved = resolve_with_identity(paths)
    locations = device_locations(real for real, _ in resolved.values())
    return {
        path: (os.fspath(path), real, locations[real], inode or os.fspath(path))
        for path, (real, inode) in resolved.items()
    }


def find_http_conflicts(http: Http | None) -> Iterator[Conflict]:
    """Yield the conflicts of `http:`: metrics that other machines can read without a token, or a missing package."""
    if http is None:
        return
    if not http.listen.is_loopback and http.token_file is None:
        yield Conflict(
            (("http", "listen"), ("http", "token_file")),
            f"{http.listen}, which other machines can reach, and no token_file",
            "an address of this machine alone, such as 127.0.0.1:9107; others together with token_file: FILE",
        )
    yield from _find_missing_extra("metrics", ("http",), "a section")


def insecure_settings(notify: Mapping[int, Notifier]) -> Iterator[Conflict]:
    """Yield the conflicts of `notify:` entries, by their index: incomplete ones, and secrets sent unencrypted."""
    for index, notifier in notify.items():
        where: KeyPath = ("notify", index)
        match notifier:
            case Webhook(url=None, url_file=None):
                yield Conflict(((*where, "url"), (*where, "url_file")), "nothing", "a URL, or url_file: FILE")
            case Webhook(url=SecretStr(), url_file=Path()):
                yield Conflict(((*where, "url"), (*where, "url_file")), "a url_file beside it", "one of the two")
            case Webhook(url=SecretStr() as url, allow_insecure=False) if is_insecure_url(url.get_secret_value()):
                yield Conflict(
                    ((*where, "url"), (*where, "allow_insecure")),
                    "http to another host, which sends names of images unencrypted",
                    HTTPS_HINT,
                )
            case Email() if (notifier.user is None) != (notifier.password_file is None):
                given, missing = ("password_file", "user") if notifier.user is None else ("user", "password_file")
                yield Conflict(
                    ((*where, given), (*where, missing)), f"no {missing}", f"{given} together with {missing}"
                )
            case Email(security=SmtpSecurity.NONE, allow_insecure=False, password_file=Path()) if not _is_local_server(
                notifier
            ):
                yield Conflict(
                    ((*where, "security"), (*where, "allow_insecure"), (*where, "password_file")),
                    "none, with a password for another host, which sends it unencrypted",
                    "starttls or tls; none for this machine, or everywhere with allow_insecure: true",
                )
            case Apprise():
                yield from _find_missing_extra("notify", (*where, "to"), "apprise")


def find_secret_name_clashes(http: Http | None, notify: Mapping[int, Notifier]) -> Iterator[Conflict]:
    """Yield files of secrets that have one name: systemd passes credentials by name, so one could replace another."""
    files = [(("http",), http.token_secret)] if http is not None and http.token_secret is not None else []
    secrets: list[tuple[KeyPath, SecretFile]] = [*files]
    secrets += [(("notify", index), file) for index, notifier in notify.items() for file in notifier.secret_files]
    path_by_name: dict[str, Path | None] = {API_KEY_CREDENTIAL: None}
    for where, file in secrets:
        first = path_by_name.setdefault(file.path.name, file.path)
        if first != file.path:
            other = "the credential that holds the API key" if first is None else first
            yield Conflict(
                ((*where, file.key),),
                f"{file.path}, which has the name of {other}",
                "another name, as systemd passes the file as a credential of that name (LoadCredential=)",
            )


def _find_missing_extra(extra: str, where: KeyPath, found: str) -> Iterator[Conflict]:
    if (hint := install_hint(extra)) is not None:
        yield Conflict((where,), f"{found} that needs a package which is not installed", f"nothing; or {hint}")


def _is_local_server(mail: Email) -> bool:
    bracketed = f"[{mail.server}]" if ":" in mail.server else mail.server
    return not is_insecure_url(f"http://{bracketed}")


def _find_exposed_key(api: Api) -> Iterator[Conflict]:
    if is_insecure_url(api.base_url) and not api.allow_insecure:
        yield Conflict(
            (("api", "base_url"), ("api", "allow_insecure")),
            "http to another host, which sends the key unencrypted",
            "https; http for localhost, 127.0.0.0/8 and [::1], or everywhere with allow_insecure: true",
        )


def _find_duplicate_names(rules: Mapping[int, Rule]) -> Iterator[Conflict]:
    index_by_name: dict[str, int] = {}
    for index, rule in rules.items():
        other = index_by_name.setdefault(rule.name, index)
        if other != index:
            key_paths: tuple[KeyPath, ...] = (("rules", index, "name"), ("rules", other, "name"))
            yield Conflict(
                key_paths, f'"{rule.name}", which is the name of rules[{other}] too', "a name that no other rule has"
            )


def _find_missing_targets(index: int, rule: Rule) -> Iterator[Conflict]:
    required = (
        ("on_success", rule.on_success is OnSuccess.MOVE, "archive", rule.archive),
        ("on_failure", rule.on_failure is OnFailure.MOVE, "failed", rule.failed),
    )
    for key, moves, target, folder in required:
        if moves and folder is None:
            yield Conflict(
                (("rules", index, key), ("rules", index, target)),
                f'move, but rule "{rule.name}" has no {target} folder',
                f"keep, or move together with {target}: FOLDER",
            )


def _find_short_settle_timeout(index: int, rule: Rule) -> Iterator[Conflict]:
    if rule.settle_timeout < rule.settle:
        yield Conflict(
            (("rules", index, "settle_timeout"), ("rules", index, "settle")),
            f"{format_duration(rule.settle_timeout)}, less than settle ({format_duration(rule.settle)})",
            "a duration that is not shorter than settle",
        )


def _find_overlapping_inboxes(inboxes: list[_ConfiguredPath]) -> Iterator[Conflict]:
    for position, inbox in enumerate(inboxes):
        for other in inboxes[:position]:
            if relation := _describe_overlap(inbox, other, "inbox"):
                allowed = "an inbox of its own for each rule, none within another"
                yield Conflict((inbox.key_path, other.key_path), f"{inbox.path}, which {relation}", allowed)


def _find_feedback_loops(folder: _ConfiguredPath, inboxes: list[_ConfiguredPath]) -> Iterator[Conflict]:
    for inbox in inboxes:
        if relation := _describe_overlap(folder, inbox, "inbox"):
            allowed = (
                "a folder that is outside every inbox and contains none, else files that are written there are "
                "submitted and paid for again"
            )
            yield Conflict((folder.key_path, inbox.key_path), f"{folder.path}, which {relation}", allowed)


def _find_original_collisions(
    folder: _ConfiguredPath, outboxes: list[_ConfiguredPath], overwriting: Collection[int]
) -> Iterator[Conflict]:
    """Yield archive and failed folders in which an original and a result could get the same name.

    Subfolders of the inbox are mirrored in each, so that can also happen if one of the two is inside the other.
    """
    for outbox in outboxes:
        same = folder.is_within(outbox) and outbox.is_within(folder)
        relation = _describe_overlap(folder, outbox, "outbox")
        if relation and (same or outbox.key_path[1] in overwriting):
            allowed = "a folder that is not an outbox, else a result could overwrite an original"
            if not same:
                allowed = (
                    "a folder that neither is inside an outbox with if_exists: overwrite nor contains one, "
                    "else a result could overwrite an original"
                )
            yield Conflict((folder.key_path, outbox.key_path), f"{folder.path}, which {relation}", allowed)


def _find_journal_in_inbox(journal: _ConfiguredPath, inboxes: list[_ConfiguredPath]) -> Iterator[Conflict]:
    for inbox in inboxes:
        if journal.is_within(inbox):
            found = f'{journal.path}, which is inside the inbox of rule "{inbox.rule}"'
            yield Conflict((journal.key_path, inbox.key_path), found, "a path outside every inbox")


def _describe_overlap(folder: _ConfiguredPath, other: _ConfiguredPath, kind: str) -> str | None:
    is_inside, contains = folder.is_within(other), other.is_within(folder)
    owner = f'the {kind} of rule "{other.rule}" ({other.path})'
    if is_inside and contains:
        return f"is {owner}"
    if is_inside:
        return f"is inside {owner}"
    return f"contains {owner}" if contains else None
