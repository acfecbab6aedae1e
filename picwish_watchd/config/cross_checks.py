"""Combinations of keys, each fine alone, that would lose images, pay in circles or give the key away."""

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from picwish_watchd.config.error_messages import Where
from picwish_watchd.config.extras import missing
from picwish_watchd.config.notifiers import HTTPS, Apprise, Email, Notifier, Security, Webhook
from picwish_watchd.config.schema import Api, Http, IfExists, OnFailure, OnSuccess, Rule
from picwish_watchd.config.secret_files import CREDENTIAL, PrivateFile
from picwish_watchd.config.strings import is_plain_http_to_elsewhere
from picwish_watchd.config.units import spell_duration
from picwish_watchd.fs.hang_guard import resolve_with_identity
from picwish_watchd.fs.mounts import device_locations

_FOLDERS = ("inbox", "outbox", "archive", "failed")


@dataclass(frozen=True, slots=True)
class Danger:
    """A combination that is refused. ``needs``: the values it comes of; the first is the one to change."""

    needs: tuple[Where, ...]
    found: str
    allowed: str


@dataclass(frozen=True, slots=True)
class _Site:
    """One path of the configuration, in the forms in which two paths can turn out to be the same place."""

    where: Where
    path: Path
    #: by its letters, by where its links lead, by where that lies on a disk, by its inode
    forms: tuple[str, ...]
    #: the rule's name, for messages
    rule: str

    def within(self, other: "_Site") -> bool:
        """True if this is the other place or lies somewhere in it."""
        pairs = zip(self.forms, other.forms, strict=True)
        return any(own == theirs or own.startswith(theirs.rstrip("/") + "/") for own, theirs in pairs)


def dangers(api: Api, journal: Path, rules: Mapping[int, Rule]) -> Iterator[Danger]:
    """All of them. ``rules`` by their place in the file; reads no folder, only follows links and looks at mounts."""
    yield from _exposed_key(api)
    yield from _same_names(rules)
    for index, rule in rules.items():
        yield from _moves_to_nowhere(index, rule)
        yield from _impatience(index, rule)
    forms = _forms([journal, *(path for rule in rules.values() for path in rule.folders().values())])
    sites: dict[str, list[_Site]] = {key: [] for key in _FOLDERS}
    for index, rule in rules.items():
        for key, path in rule.folders().items():
            sites[key].append(_Site(("rules", index, key), path, forms[path], rule.name))
    yield from _overlapping_inboxes(sites["inbox"])
    for key in ("outbox", "archive", "failed"):
        for site in sites[key]:
            yield from _circles(site, sites["inbox"])
    overwriting = {index for index, rule in rules.items() if rule.if_exists is IfExists.OVERWRITE}
    for site in (*sites["archive"], *sites["failed"]):
        yield from _originals_among_results(site, sites["outbox"], overwriting)
    yield from _journal_in_inbox(_Site(("journal",), journal, forms[journal], ""), sites["inbox"])


def _forms(paths: Collection[Path]) -> dict[Path, tuple[str, ...]]:
    """Links are followed, and inodes known, as far as paths exist and answer; else its letters stand for a path."""
    found = resolve_with_identity(paths)
    lies = device_locations(real for real, _ in found.values())
    return {path: (os.fspath(path), real, lies[real], what or os.fspath(path)) for path, (real, what) in found.items()}


def http_dangers(http: Http | None) -> Iterator[Danger]:
    """Figures that everybody could read, or that cannot be served by what is installed; imports nothing."""
    if http is None:
        return
    if not http.listen.loopback and http.token_file is None:
        yield Danger(
            (("http", "listen"), ("http", "token_file")),
            f"{http.listen}, which other machines can reach, and no token_file",
            "an address of this machine alone, such as 127.0.0.1:9107; others together with token_file: FILE",
        )
    yield from _missing("metrics", ("http",), "a section")


def indiscretions(notify: Mapping[int, Notifier]) -> Iterator[Danger]:
    """Entries of `notify:`, by their place in the file, that would tell a secret to whoever listens."""
    for index, notifier in notify.items():
        where: Where = ("notify", index)
        match notifier:
            case Webhook(url=None, url_file=None):
                yield Danger(((*where, "url"), (*where, "url_file")), "nothing", "a URL, or url_file: FILE")
            case Webhook(url=SecretStr(), url_file=Path()):
                yield Danger(((*where, "url"), (*where, "url_file")), "a url_file beside it", "one of the two")
            case Webhook(url=SecretStr() as url, allow_insecure=False) if is_plain_http_to_elsewhere(
                url.get_secret_value()
            ):
                yield Danger(
                    ((*where, "url"), (*where, "allow_insecure")),
                    "http to another host, which sends names of images unencrypted",
                    HTTPS,
                )
            case Email() if (notifier.user is None) != (notifier.password_file is None):
                there, gone = ("password_file", "user") if notifier.user is None else ("user", "password_file")
                yield Danger(((*where, there), (*where, gone)), f"no {gone}", f"{there} together with {gone}")
            case Email(security=Security.NONE, allow_insecure=False, password_file=Path()) if not _is_here(notifier):
                yield Danger(
                    ((*where, "security"), (*where, "allow_insecure"), (*where, "password_file")),
                    "none, with a password for another host, which sends it unencrypted",
                    "starttls or tls; none for this machine, or everywhere with allow_insecure: true",
                )
            case Apprise():
                yield from _missing("notify", (*where, "to"), "apprise")


def namesakes(http: Http | None, notify: Mapping[int, Notifier]) -> Iterator[Danger]:
    """Files of secrets with one name: systemd hands credentials over by name, and one could be taken for the other."""
    files = [(("http",), http.token)] if http is not None and http.token is not None else []
    found: list[tuple[Where, PrivateFile]] = [*files]
    found += [(("notify", index), file) for index, notifier in notify.items() for file in notifier.private]
    taken: dict[str, Path | None] = {CREDENTIAL: None}
    for where, file in found:
        first = taken.setdefault(file.path.name, file.path)
        if first != file.path:
            other = "the credential that holds the API key" if first is None else first
            yield Danger(
                ((*where, file.key),),
                f"{file.path}, which has the name of {other}",
                "another name: by its name systemd can hand the file over (LoadCredential=)",
            )


def _missing(extra: str, where: Where, found: str) -> Iterator[Danger]:
    if (how := missing(extra)) is not None:
        yield Danger((where,), f"{found} that needs a package which is not installed", f"nothing of it; or {how}")


def _is_here(mail: Email) -> bool:
    bracketed = f"[{mail.server}]" if ":" in mail.server else mail.server
    return not is_plain_http_to_elsewhere(f"http://{bracketed}")


def _exposed_key(api: Api) -> Iterator[Danger]:
    if is_plain_http_to_elsewhere(api.base_url) and not api.allow_insecure:
        yield Danger(
            (("api", "base_url"), ("api", "allow_insecure")),
            "http to another host, which sends the key unencrypted",
            "https; http for localhost, 127.0.0.0/8 and [::1], or everywhere with allow_insecure: true",
        )


def _same_names(rules: Mapping[int, Rule]) -> Iterator[Danger]:
    first: dict[str, int] = {}
    for index, rule in rules.items():
        other = first.setdefault(rule.name, index)
        if other != index:
            needs: tuple[Where, ...] = (("rules", index, "name"), ("rules", other, "name"))
            yield Danger(needs, f'"{rule.name}", the name of rules[{other}] too', "a name that no other rule has")


def _moves_to_nowhere(index: int, rule: Rule) -> Iterator[Danger]:
    asked = (
        ("on_success", rule.on_success is OnSuccess.MOVE, "archive", rule.archive),
        ("on_failure", rule.on_failure is OnFailure.MOVE, "failed", rule.failed),
    )
    for key, moves, target, folder in asked:
        if moves and folder is None:
            yield Danger(
                (("rules", index, key), ("rules", index, target)),
                f'move, and no {target} folder in rule "{rule.name}"',
                f"keep, or move together with {target}: FOLDER",
            )


def _impatience(index: int, rule: Rule) -> Iterator[Danger]:
    if rule.settle_timeout < rule.settle:
        yield Danger(
            (("rules", index, "settle_timeout"), ("rules", index, "settle")),
            f"{spell_duration(rule.settle_timeout)}, less than settle ({spell_duration(rule.settle)})",
            "a duration that is not shorter than settle",
        )


def _overlapping_inboxes(inboxes: list[_Site]) -> Iterator[Danger]:
    for position, site in enumerate(inboxes):
        for other in inboxes[:position]:
            if relation := _relation(site, other, "inbox"):
                allowed = "an inbox of its own for each rule, none within another"
                yield Danger((site.where, other.where), f"{site.path}, which {relation}", allowed)


def _circles(site: _Site, inboxes: list[_Site]) -> Iterator[Danger]:
    for inbox in inboxes:
        if relation := _relation(site, inbox, "inbox"):
            allowed = (
                "a folder outside every inbox that contains none, else what is written there is taken and paid again"
            )
            yield Danger((site.where, inbox.where), f"{site.path}, which {relation}", allowed)


def _originals_among_results(site: _Site, outboxes: list[_Site], overwriting: Collection[int]) -> Iterator[Danger]:
    """Subfolders are mirrored: where one of the two lies in the other, a result and an original can get one name."""
    for outbox in outboxes:
        same = site.within(outbox) and outbox.within(site)
        relation = _relation(site, outbox, "outbox")
        if relation and (same or outbox.where[1] in overwriting):
            apart = "" if same else " with if_exists: overwrite, lies in none and contains none"
            allowed = f"a folder that is no outbox{apart}, else a result could overwrite an original"
            yield Danger((site.where, outbox.where), f"{site.path}, which {relation}", allowed)


def _journal_in_inbox(journal: _Site, inboxes: list[_Site]) -> Iterator[Danger]:
    for inbox in inboxes:
        if journal.within(inbox):
            found = f'{journal.path}, which lies in the inbox of rule "{inbox.rule}"'
            yield Danger((journal.where, inbox.where), found, "a path outside every inbox")


def _relation(site: _Site, other: _Site, kind: str) -> str | None:
    inside, around = site.within(other), other.within(site)
    owner = f'the {kind} of rule "{other.rule}" ({other.path})'
    if inside and around:
        return f"is {owner}"
    if inside:
        return f"lies in {owner}"
    return f"contains {owner}" if around else None
