"""Combinations of keys, each fine alone, that would lose images, pay in circles or give the key away."""

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
    """A combination that is refused. ``needs``: the values it comes of; the first is the one to change."""

    key_paths: tuple[KeyPath, ...]
    found: str
    allowed: str


@dataclass(frozen=True, slots=True)
class _ConfiguredPath:
    """One path of the configuration, in the forms in which two paths can turn out to be the same place."""

    key_path: KeyPath
    path: Path
    #: by its letters, by where its links lead, by where that lies on a disk, by its inode
    identities: tuple[str, ...]
    #: the rule's name, for messages
    rule: str

    def is_within(self, other: "_ConfiguredPath") -> bool:
        """True if this is the other place or lies somewhere in it."""
        pairs = zip(self.identities, other.identities, strict=True)
        return any(own == theirs or own.startswith(theirs.rstrip("/") + "/") for own, theirs in pairs)


def find_conflicts(api: Api, journal: Path, rules: Mapping[int, Rule]) -> Iterator[Conflict]:
    """All of them. ``rules`` by their place in the file; reads no folder, only follows links and looks at mounts."""
    yield from _find_exposed_key(api)
    yield from _find_duplicate_names(rules)
    for index, rule in rules.items():
        yield from _find_missing_targets(index, rule)
        yield from _find_short_settle_timeout(index, rule)
    forms = _resolve_identities([journal, *(path for rule in rules.values() for path in rule.folders().values())])
    sites: dict[str, list[_ConfiguredPath]] = {key: [] for key in _FOLDER_KEYS}
    for index, rule in rules.items():
        for key, path in rule.folders().items():
            sites[key].append(_ConfiguredPath(("rules", index, key), path, forms[path], rule.name))
    yield from _find_overlapping_inboxes(sites["inbox"])
    for key in ("outbox", "archive", "failed"):
        for site in sites[key]:
            yield from _find_feedback_loops(site, sites["inbox"])
    overwriting = {index for index, rule in rules.items() if rule.if_exists is IfExists.OVERWRITE}
    for site in (*sites["archive"], *sites["failed"]):
        yield from _find_original_collisions(site, sites["outbox"], overwriting)
    yield from _find_journal_in_inbox(_ConfiguredPath(("journal",), journal, forms[journal], ""), sites["inbox"])


def _resolve_identities(paths: Collection[Path]) -> dict[Path, tuple[str, ...]]:
    """Links are followed, and inodes known, as far as paths exist and answer; else its letters stand for a path."""
    found = resolve_with_identity(paths)
    lies = device_locations(real for real, _ in found.values())
    return {path: (os.fspath(path), real, lies[real], what or os.fspath(path)) for path, (real, what) in found.items()}


def find_http_conflicts(http: Http | None) -> Iterator[Conflict]:
    """Figures that everybody could read, or that cannot be served by what is installed; imports nothing."""
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
    """Entries of `notify:`, by their place in the file, that would tell a secret to whoever listens."""
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
                there, gone = ("password_file", "user") if notifier.user is None else ("user", "password_file")
                yield Conflict(((*where, there), (*where, gone)), f"no {gone}", f"{there} together with {gone}")
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
    """Files of secrets with one name: systemd hands credentials over by name, and one could be taken for the other."""
    files = [(("http",), http.token_secret)] if http is not None and http.token_secret is not None else []
    found: list[tuple[KeyPath, SecretFile]] = [*files]
    found += [(("notify", index), file) for index, notifier in notify.items() for file in notifier.secret_files]
    taken: dict[str, Path | None] = {API_KEY_CREDENTIAL: None}
    for where, file in found:
        first = taken.setdefault(file.path.name, file.path)
        if first != file.path:
            other = "the credential that holds the API key" if first is None else first
            yield Conflict(
                ((*where, file.key),),
                f"{file.path}, which has the name of {other}",
                "another name: by its name systemd can hand the file over (LoadCredential=)",
            )


def _find_missing_extra(extra: str, where: KeyPath, found: str) -> Iterator[Conflict]:
    if (how := install_hint(extra)) is not None:
        yield Conflict((where,), f"{found} that needs a package which is not installed", f"nothing of it; or {how}")


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
    first: dict[str, int] = {}
    for index, rule in rules.items():
        other = first.setdefault(rule.name, index)
        if other != index:
            needs: tuple[KeyPath, ...] = (("rules", index, "name"), ("rules", other, "name"))
            yield Conflict(needs, f'"{rule.name}", the name of rules[{other}] too', "a name that no other rule has")


def _find_missing_targets(index: int, rule: Rule) -> Iterator[Conflict]:
    asked = (
        ("on_success", rule.on_success is OnSuccess.MOVE, "archive", rule.archive),
        ("on_failure", rule.on_failure is OnFailure.MOVE, "failed", rule.failed),
    )
    for key, moves, target, folder in asked:
        if moves and folder is None:
            yield Conflict(
                (("rules", index, key), ("rules", index, target)),
                f'move, and no {target} folder in rule "{rule.name}"',
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
    for position, site in enumerate(inboxes):
        for other in inboxes[:position]:
            if relation := _describe_overlap(site, other, "inbox"):
                allowed = "an inbox of its own for each rule, none within another"
                yield Conflict((site.key_path, other.key_path), f"{site.path}, which {relation}", allowed)


def _find_feedback_loops(site: _ConfiguredPath, inboxes: list[_ConfiguredPath]) -> Iterator[Conflict]:
    for inbox in inboxes:
        if relation := _describe_overlap(site, inbox, "inbox"):
            allowed = (
                "a folder outside every inbox that contains none, else what is written there is taken and paid again"
            )
            yield Conflict((site.key_path, inbox.key_path), f"{site.path}, which {relation}", allowed)


def _find_original_collisions(
    site: _ConfiguredPath, outboxes: list[_ConfiguredPath], overwriting: Collection[int]
) -> Iterator[Conflict]:
    """Subfolders are mirrored: where one of the two lies in the other, a result and an original can get one name."""
    for outbox in outboxes:
        same = site.is_within(outbox) and outbox.is_within(site)
        relation = _describe_overlap(site, outbox, "outbox")
        if relation and (same or outbox.key_path[1] in overwriting):
            apart = "" if same else " with if_exists: overwrite, lies in none and contains none"
            allowed = f"a folder that is no outbox{apart}, else a result could overwrite an original"
            yield Conflict((site.key_path, outbox.key_path), f"{site.path}, which {relation}", allowed)


def _find_journal_in_inbox(journal: _ConfiguredPath, inboxes: list[_ConfiguredPath]) -> Iterator[Conflict]:
    for inbox in inboxes:
        if journal.is_within(inbox):
            found = f'{journal.path}, which lies in the inbox of rule "{inbox.rule}"'
            yield Conflict((journal.key_path, inbox.key_path), found, "a path outside every inbox")


def _describe_overlap(site: _ConfiguredPath, other: _ConfiguredPath, kind: str) -> str | None:
    inside, around = site.is_within(other), other.is_within(site)
    owner = f'the {kind} of rule "{other.rule}" ({other.path})'
    if inside and around:
        return f"is {owner}"
    if inside:
        return f"lies in {owner}"
    return f"contains {owner}" if around else None
