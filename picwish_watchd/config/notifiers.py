"""Whom the daemon tells of what a person should know: the entries of `notify:`, one kind for each way."""

import os
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from pydantic import Field, PlainValidator, SecretStr, ValidationInfo

from picwish_watchd.config import texts, units
from picwish_watchd.config.schema import Count, Flag, Folder, OptionalPath, Section

_SERVER = re.compile(r"[A-Za-z0-9._:-]{1,255}", re.ASCII)
_ADDRESS = re.compile(r"[^\s<>@,;:\"]{1,64}@[^\s<>@,;:\"]{1,255}")
_MOMENT = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])", re.ASCII)
_NOT_SHOWN = "a URL that is not shown here"


class Event(StrEnum):
    """What a person is told of."""

    HELD = "held"  #: going on with an image could cost credits twice
    FAILED = "failed"  #: an image was submitted and refused, or given up
    REJECTED = "rejected"  #: a file is at fault; nothing was submitted
    BLOCKED = "blocked"  #: nothing is submitted: key refused, PicWish down, a flood that waits for `approve`, ...
    BUDGET = "budget"  #: 80 and 100 % of the day's or the month's credits
    ROOT_LOST = "root_lost"  #: an inbox or an outbox is away
    DIGEST = "digest"  #: once a day


class Security(StrEnum):
    """How the connection to a mail server is protected."""

    STARTTLS = "starttls"
    TLS = "tls"  #: from the first byte on
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


def _url(value: object, info: ValidationInfo) -> SecretStr:
    if isinstance(value, SecretStr):
        return value
    try:
        url = texts.expanded(value, info.context)
        parts = urlsplit(url)
        _ = parts.port  # the property raises for a port that is none
    except units.RefusedError as refused:
        raise units.RefusedError(refused.allowed, found=_NOT_SHOWN) from None
    except ValueError:
        raise units.RefusedError("a URL such as https://hooks.example.org/abc", found=_NOT_SHOWN) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or any(map(str.isspace, url)) or not url.isascii():
        raise units.RefusedError("a URL such as https://hooks.example.org/abc", found=_NOT_SHOWN)
    if parts.username is not None or parts.password is not None:
        raise units.RefusedError("a URL without them; headers_file is the place", found="a URL with a user name")
    return SecretStr(url)


def _program(value: object, info: ValidationInfo) -> tuple[str, ...]:
    """A program that is named with a "/" is a path like any other; one without is looked for in PATH."""
    if not isinstance(value, list | tuple) or not value:
        raise units.RefusedError("a list: the program and its arguments, such as [/usr/local/bin/tell, --urgent]")
    first, *rest = (texts.text(each) for each in value)
    program = os.fspath(texts.path(first, info.context)) if "/" in first or first.startswith("~") else first
    return (program, *rest)


def _server(value: object) -> str:
    if not _SERVER.fullmatch(texts.text(value)):
        raise units.RefusedError("the name of a mail server, such as smtp.example.org")
    return texts.text(value)


def _port(value: object) -> int | None:
    if value is None:
        return None
    port = units.whole(value, least=1)
    if port > 65535:
        raise units.RefusedError("a port, 1 to 65535")
    return port


def _address(value: object) -> str:
    if not _ADDRESS.fullmatch(texts.text(value)):
        raise units.RefusedError("a mail address such as studio@example.org")
    return texts.text(value)


def _addresses(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise units.RefusedError("a list of mail addresses, such as [studio@example.org]")
    return tuple(map(_address, value))


def _text_or_none(value: object) -> str | None:
    return None if value is None else texts.text(value)


class Notifier(Section):
    """What all ways have in common. ``label`` names one for people, without a secret."""

    way: ClassVar[Way]

    to: Annotated[Way, PlainValidator(lambda value: units.word(value, kind=Way))]
    events: Annotated[tuple[Event, ...], PlainValidator(_events)] = tuple(Event)
    at_most: Count = 20  #: messages in an hour; what comes above waits, and is summed up in one
    timeout: Annotated[float, PlainValidator(lambda value: units.duration(value, most=300.0))] = 30.0  #: seconds
    digest_at: Annotated[str, PlainValidator(_time_of_day)] = "08:00"  #: local time
    digest_always: Flag = False  #: also on a day on which nothing happened

    @property
    def label(self) -> str:
        """Which one this is, for people: its way and where it leads."""
        return self.to


class Webhook(Notifier):
    """A POST of JSON to a URL. The URL may be a secret by itself, as those of chat rooms are."""

    way = Way.WEBHOOK
    url: Annotated[SecretStr, PlainValidator(_url)] = Field(repr=False, description="a URL")
    headers_file: OptionalPath = None  #: "Name: value" a line, such as Authorization
    allow_insecure: Flag = False  #: http to other hosts than this one

    @property
    def host(self) -> str:
        """Where it leads, without the path, which may be secret."""
        return urlsplit(self.url.get_secret_value()).hostname or ""

    @property
    def label(self) -> str:
        return f"webhook {self.host}"


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
    port: Annotated[int | None, PlainValidator(_port)] = None  #: None: 587 for starttls, 465 for tls, 25 for none
    security: Annotated[Security, PlainValidator(lambda value: units.word(value, kind=Security))] = Security.STARTTLS
    user: Annotated[str | None, PlainValidator(_text_or_none)] = None
    password_file: OptionalPath = None
    sender: Annotated[str, PlainValidator(_address)] = Field(description="the mail address that it comes from")
    recipients: Annotated[tuple[str, ...], PlainValidator(_addresses)] = Field(description="a list of mail addresses")
    allow_insecure: Flag = False  #: the password may go unencrypted to another host

    @property
    def label(self) -> str:
        return f"email {self.server}"


class Apprise(Notifier):
    """Whatever the library apprise knows; needs the extra `notify`."""

    way = Way.APPRISE
    urls_file: Folder = Field(description="a file with an apprise URL a line")

    @property
    def label(self) -> str:
        return f"apprise {self.urls_file.name}"


KINDS: Mapping[str, type[Notifier]] = {str(kind.way): kind for kind in (Webhook, Command, Email, Apprise)}

#: Stand in for required keys that are missing or refused, while the rest of an entry is judged.
STAND_INS: Mapping[type[Section], Mapping[str, object]] = {
    Webhook: {"to": Way.WEBHOOK, "url": SecretStr("https://nowhere")},
    Command: {"to": Way.COMMAND, "run": ("/nowhere",)},
    Email: {"to": Way.EMAIL, "server": "nowhere", "sender": "a@nowhere", "recipients": ("a@nowhere",)},
    Apprise: {"to": Way.APPRISE, "urls_file": "/nowhere"},
}
