"""Whom the daemon tells of what a person should know: the entries of `notify:`, one kind for each way."""

import os
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from pydantic import Field, PlainValidator, SecretStr, ValidationInfo

from picwish_watchd.config import strings, units
from picwish_watchd.config.fields import Count, Flag, Folder, OptionalPath, Section
from picwish_watchd.config.secret_files import PrivateFile
from picwish_watchd.errors import ConfigError
from picwish_watchd.redaction import register_secret

_SERVER = re.compile(r"[A-Za-z0-9._:-]{1,255}", re.ASCII)
_ADDRESS = re.compile(r"[^\s<>@,;:\"]{1,64}@[^\s<>@,;:\"]{1,255}")
#: allowed
HTTPS = "https; http for localhost, 127.0.0.0/8 and [::1], or everywhere with allow_insecure: true"
_MOMENT = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])", re.ASCII)
_NOT_SHOWN = "a URL that is not shown here"
_A_URL = "a URL such as https://hooks.example.org/abc"


class Event(StrEnum):
    """What a person is told of."""

    #: going on with an image could cost credits twice
    HELD = "held"
    #: an image was submitted and refused, or given up
    FAILED = "failed"
    #: a file is at fault; nothing was submitted
    REJECTED = "rejected"
    #: nothing is submitted: key refused, PicWish down, a flood that waits for `approve`, ...
    BLOCKED = "blocked"
    #: 80 and 100 % of the day's or the month's credits
    BUDGET = "budget"
    #: an inbox or an outbox is away
    ROOT_LOST = "root_lost"
    #: once a day
    DIGEST = "digest"


class Security(StrEnum):
    """How the connection to a mail server is protected."""

    STARTTLS = "starttls"
    #: from the first byte on
    TLS = "tls"
    NONE = "none"


class Way(StrEnum):
    """How a message goes out."""

    WEBHOOK = "webhook"
    COMMAND = "command"
    EMAIL = "email"
    APPRISE = "apprise"


def _events(value: object) -> tuple[Event, ...]:
    known = list(Event)
    if isinstance(value, list | tuple) and value:
        return tuple(units.word(each, kind=Event) for each in value)
    raise units.RefusedError(f"a list of some of {', '.join(known)}")


def _time_of_day(value: object) -> str:
    match = _MOMENT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise units.RefusedError('a local time of day such as "08:00"')
    return f"{int(match[1]):02}:{match[2]}"


def _url(value: object, info: ValidationInfo) -> SecretStr | None:
    if value is None or isinstance(value, SecretStr):
        return value
    try:
        url = strings.expanded(value, info.context)
    except units.RefusedError as refused:
        raise units.RefusedError(refused.allowed, found=_NOT_SHOWN) from None
    return SecretStr(register_secret(_checked(url)))


def _checked(url: str) -> str:
    """An http(s) URL. Raises `RefusedError`, which does not quote it."""
    try:
        parts = urlsplit(url)
        # the property raises for a port that is none
        _ = parts.port
    except ValueError:
        raise units.RefusedError(_A_URL, found=_NOT_SHOWN) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or any(map(str.isspace, url)) or not url.isascii():
        raise units.RefusedError(_A_URL, found=_NOT_SHOWN)
    if parts.username is not None or parts.password is not None:
        raise units.RefusedError("a URL without them; headers_file is the place", found="a URL with a user name")
    return url


def _program(value: object, info: ValidationInfo) -> tuple[str, ...]:
    """A program that is named with a "/" is a path like any other; one without is looked for in PATH."""
    if not isinstance(value, list | tuple) or not value:
        raise units.RefusedError("a list: the program and its arguments, such as [/usr/local/bin/tell, --urgent]")
    first, *rest = (strings.text(each) for each in value)
    program = os.fspath(strings.path(first, info.context)) if "/" in first or first.startswith("~") else first
    return (program, *rest)


def _server(value: object) -> str:
    if not _SERVER.fullmatch(strings.text(value)):
        found = "a value with a user name, which is not shown here" if "@" in strings.text(value) else None
        raise units.RefusedError("the name of a mail server, such as smtp.example.org", found=found)
    return strings.text(value)


def _port(value: object) -> int | None:
    if value is None:
        return None
    port = units.whole(value, least=1)
    if port > 65535:
        raise units.RefusedError("a port, 1 to 65535")
    return port


def _address(value: object) -> str:
    if not _ADDRESS.fullmatch(strings.text(value)):
        raise units.RefusedError("a mail address such as studio@example.org")
    return strings.text(value)


def _addresses(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise units.RefusedError("a list of mail addresses, such as [studio@example.org]")
    return tuple(map(_address, value))


def _text_or_none(value: object) -> str | None:
    return None if value is None else strings.text(value)


def _private(path: Path | None, key: str, what: str, hint: str) -> PrivateFile | None:
    return None if path is None else PrivateFile(path, key, what, hint)


class Notifier(Section):
    """What all ways have in common. ``label`` names one for people, without a secret."""

    way: ClassVar[Way]

    to: Annotated[Way, PlainValidator(lambda value: units.word(value, kind=Way))]
    events: Annotated[tuple[Event, ...], PlainValidator(_events)] = tuple(Event)
    #: messages in an hour; what comes above waits, and is summed up in one
    at_most: Count = 20
    #: seconds
    timeout: Annotated[float, PlainValidator(lambda value: units.duration(value, most=300.0))] = 30.0
    #: local time
    digest_at: Annotated[str, PlainValidator(_time_of_day)] = "08:00"
    #: also on a day on which nothing happened
    digest_always: Flag = False

    @property
    def label(self) -> str:
        """Which one this is, for people: its way and where it leads."""
        return self.to

    @property
    def private(self) -> tuple[PrivateFile, ...]:
        """The files of secrets that it names."""
        return ()


class Webhook(Notifier):
    """A POST of JSON to a URL. The URL may be a secret by itself, as those of chat rooms are."""

    way = Way.WEBHOOK
    url: Annotated[SecretStr | None, PlainValidator(_url)] = Field(default=None, repr=False)
    #: the URL alone, in its stead
    url_file: OptionalPath = None
    #: "Name: value" a line, such as Authorization
    headers_file: OptionalPath = None
    #: http to other hosts than this one
    allow_insecure: Flag = False

    @property
    def label(self) -> str:
        if self.url is not None:
            return f"webhook {urlsplit(self.url.get_secret_value()).hostname}"
        return f"webhook {'' if self.url_file is None else self.url_file.name}"

    @property
    def address(self) -> PrivateFile | None:
        """Where the URL stands, unless it stands in the configuration."""
        return _private(self.url_file, "url_file", "the URL file", "put the URL alone into it")

    @property
    def headers(self) -> PrivateFile | None:
        """Where the headers stand."""
        return _private(self.headers_file, "headers_file", "the headers file", 'one "Name: value" a line')

    @property
    def private(self) -> tuple[PrivateFile, ...]:
        return tuple(file for file in (self.address, self.headers) if file is not None)

    def read_url(self) -> str:
        """Where it leads. Raises `ConfigError` for a file that cannot be used, or holds no URL that can be."""
        if self.address is None:
            return "" if self.url is None else self.url.get_secret_value()
        try:
            url = _checked(self.address.word())
        except units.RefusedError as refused:
            where = f"{self.address.what} {self.address.path}"
            raise ConfigError(f"{where} holds {refused.found}; allowed: {refused.allowed}") from None
        if strings.is_plain_http_to_elsewhere(url) and not self.allow_insecure:
            raise ConfigError(f"{self.address.what} {self.address.path} leads by http to another host", hint=HTTPS)
        return url


class Command(Notifier):
    """A program that is run without a shell, with JSON on its standard input."""

    way = Way.COMMAND
    run: Annotated[tuple[str, ...], PlainValidator(_program)] = Field(description="a program and its arguments")

    @property
    def label(self) -> str:
        return f"command {Path(self.run[0]).name}"


class Email(Notifier):
    """A mail through a server."""

    way = Way.EMAIL
    server: Annotated[str, PlainValidator(_server)] = Field(description="the mail server, such as smtp.example.org")
    #: None: 587 for starttls, 465 for tls, 25 for none
    port: Annotated[int | None, PlainValidator(_port)] = None
    security: Annotated[Security, PlainValidator(lambda value: units.word(value, kind=Security))] = Security.STARTTLS
    user: Annotated[str | None, PlainValidator(_text_or_none)] = None
    password_file: OptionalPath = None
    sender: Annotated[str, PlainValidator(_address)] = Field(description="the mail address that it comes from")
    recipients: Annotated[tuple[str, ...], PlainValidator(_addresses)] = Field(description="a list of mail addresses")
    #: the password may go unencrypted to another host
    allow_insecure: Flag = False

    @property
    def label(self) -> str:
        return f"email {self.server}"

    @property
    def password(self) -> PrivateFile | None:
        """Where the password stands."""
        hint = "put the password alone into it, readable for the daemon only"
        return _private(self.password_file, "password_file", "the password file", hint)

    @property
    def private(self) -> tuple[PrivateFile, ...]:
        return () if self.password is None else (self.password,)


class Apprise(Notifier):
    """Whatever the library apprise knows; needs the extra `notify`."""

    way = Way.APPRISE
    urls_file: Folder = Field(description="a file with an apprise URL a line")

    @property
    def label(self) -> str:
        return f"apprise {self.urls_file.name}"

    @property
    def urls(self) -> PrivateFile:
        """Where the URLs stand."""
        return PrivateFile(self.urls_file, "urls_file", "the file of apprise URLs", "one URL a line")

    @property
    def private(self) -> tuple[PrivateFile, ...]:
        return (self.urls,)


KINDS: Mapping[str, type[Notifier]] = {str(kind.way): kind for kind in (Webhook, Command, Email, Apprise)}

#: Stand in for required keys that are missing or refused, while the rest of an entry is judged.
STAND_INS: Mapping[type[Section], Mapping[str, object]] = {
    Webhook: {"to": Way.WEBHOOK},
    Command: {"to": Way.COMMAND, "run": ("/nowhere",)},
    Email: {"to": Way.EMAIL, "server": "nowhere", "sender": "a@nowhere", "recipients": ("a@nowhere",)},
    Apprise: {"to": Way.APPRISE, "urls_file": "/nowhere"},
}
