"""The entries of `notify:`: one class for each kind of channel on which the daemon notifies people."""

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
from picwish_watchd.config.secret_files import SecretFile
from picwish_watchd.errors import ConfigError
from picwish_watchd.redaction import register_secret

_SERVER_PATTERN = re.compile(r"[A-Za-z0-9._:-]{1,255}", re.ASCII)
_MAIL_ADDRESS_PATTERN = re.compile(r"[^\s<>@,;:\"]{1,64}@[^\s<>@,;:\"]{1,255}")
#: What is allowed instead of http to another host.
HTTPS_HINT = "https; http for localhost, 127.0.0.0/8 and [::1], or everywhere with allow_insecure: true"
_TIME_PATTERN = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])", re.ASCII)
_REDACTED_URL = "a URL that is not shown here"
_URL_HINT = "a URL such as https://hooks.example.org/abc"


class NotificationEvent(StrEnum):
    """The kinds of messages, of which an entry of `notify:` selects some."""

    #: An image is held, as going on could cost credits twice.
    HELD = "held"
    #: An image was submitted and refused, or given up.
    FAILED = "failed"
    #: A file cannot be enhanced; nothing was submitted.
    REJECTED = "rejected"
    #: Nothing is submitted: the key is refused, PicWish is down, a flood waits for `approve`, ...
    BLOCKED = "blocked"
    #: 80 or 100 % of the day's or the month's credits are spent.
    BUDGET = "budget"
    #: An inbox or an outbox is not available.
    ROOT_LOST = "root_lost"
    #: The summary of a day.
    DIGEST = "digest"


class SmtpSecurity(StrEnum):
    """How the connection to a mail server is protected."""

    #: Encrypted after the STARTTLS command (RFC 3207).
    STARTTLS = "starttls"
    #: Encrypted from the first byte.
    TLS = "tls"
    NONE = "none"


class ChannelKind(StrEnum):
    """How a message is sent."""

    WEBHOOK = "webhook"
    COMMAND = "command"
    EMAIL = "email"
    APPRISE = "apprise"


def _parse_events(value: object) -> tuple[NotificationEvent, ...]:
    known = list(NotificationEvent)
    if isinstance(value, list | tuple) and value:
        return tuple(units.parse_enum(word, kind=NotificationEvent) for word in value)
    raise units.InvalidValueError(f"a list of some of {', '.join(known)}")


def _parse_time_of_day(value: object) -> str:
    match = _TIME_PATTERN.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise units.InvalidValueError('a local time of day such as "08:00"')
    return f"{int(match[1]):02}:{match[2]}"


def _parse_secret_url(value: object, info: ValidationInfo) -> SecretStr | None:
    if value is None or isinstance(value, SecretStr):
        return value
    try:
        url = strings.expand_variables(value, info.context)
    except units.InvalidValueError as invalid:
        raise units.InvalidValueError(invalid.allowed, found=_REDACTED_URL) from None
    return SecretStr(register_secret(_validate_url(url)))


def _validate_url(url: str) -> str:
    """Return an http or https URL. Raises `InvalidValueError`, which does not quote it."""
    try:
        parts = urlsplit(url)
        # The property raises ValueError for a port that is not valid.
        _ = parts.port
    except ValueError:
        raise units.InvalidValueError(_URL_HINT, found=_REDACTED_URL) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or any(map(str.isspace, url)) or not url.isascii():
        raise units.InvalidValueError(_URL_HINT, found=_REDACTED_URL)
    if parts.username is not None or parts.password is not None:
        raise units.InvalidValueError(
            "a URL without them; put an Authorization header into headers_file", found="a URL with a user name"
        )
    return url


def _parse_command(value: object, info: ValidationInfo) -> tuple[str, ...]:
    """Parse a program and its arguments; a program without a "/" is looked for in PATH."""
    if not isinstance(value, list | tuple) or not value:
        raise units.InvalidValueError(
            "a list: the program and its arguments, such as [/usr/local/bin/notify, --urgent]"
        )
    first, *arguments = (strings.parse_text(word) for word in value)
    program = os.fspath(strings.parse_path(first, info.context)) if "/" in first or first.startswith("~") else first
    return (program, *arguments)


def _parse_server(value: object) -> str:
    if not _SERVER_PATTERN.fullmatch(strings.parse_text(value)):
        found = "a value with a user name, which is not shown here" if "@" in strings.parse_text(value) else None
        raise units.InvalidValueError("the name of a mail server, such as smtp.example.org", found=found)
    return strings.parse_text(value)


def _parse_port(value: object) -> int | None:
    if value is None:
        return None
    port = units.parse_whole_number(value, least=1)
    if port > 65535:
        raise units.InvalidValueError("a port, 1 to 65535")
    return port


def _parse_mail_address(value: object) -> str:
    if not _MAIL_ADDRESS_PATTERN.fullmatch(strings.parse_text(value)):
        raise units.InvalidValueError("a mail address such as studio@example.org")
    return strings.parse_text(value)


def _parse_mail_addresses(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise units.InvalidValueError("a list of mail addresses, such as [studio@example.org]")
    return tuple(map(_parse_mail_address, value))


def _parse_optional_text(value: object) -> str | None:
    return None if value is None else strings.parse_text(value)


def _optional_secret_file(path: Path | None, key: str, description: str, hint: str) -> SecretFile | None:
    return None if path is None else SecretFile(path, key, description, hint)


class Notifier(Section):
    """The keys that all kinds of channels have."""

    channel_kind: ClassVar[ChannelKind]

    to: Annotated[ChannelKind, PlainValidator(lambda value: units.parse_enum(value, kind=ChannelKind))]
    events: Annotated[tuple[NotificationEvent, ...], PlainValidator(_parse_events)] = tuple(NotificationEvent)
    #: Messages in an hour; further ones wait, and are summed up in one.
    at_most: Count = 20
    #: Seconds.
    timeout: Annotated[float, PlainValidator(lambda value: units.parse_duration(value, most=300.0))] = 30.0
    #: Local time.
    digest_at: Annotated[str, PlainValidator(_parse_time_of_day)] = "08:00"
    #: Send the summary also on a day on which nothing happened.
    digest_always: Flag = False

    @property
    def label(self) -> str:
        """The name of this channel for people, without secrets: its kind and where messages go."""
        return self.to

    @property
    def secret_files(self) -> tuple[SecretFile, ...]:
        """The files of secrets that the entry names."""
        return ()


class Webhook(Notifier):
    """A POST of JSON to a URL. The URL itself may be secret, as those of chat rooms are."""

    channel_kind = ChannelKind.WEBHOOK
    url: Annotated[SecretStr | None, PlainValidator(_parse_secret_url)] = Field(default=None, repr=False)
    #: A file that has only the URL, instead of `url`.
    url_file: OptionalPath = None
    #: A file with one "Name: value" a line, such as an Authorization header.
    headers_file: OptionalPath = None
    #: Allow http to hosts other than this machine.
    allow_insecure: Flag = False

    @property
    def label(self) -> str:
        if self.url is not None:
            return f"webhook {urlsplit(self.url.get_secret_value()).hostname}"
        return f"webhook {'' if self.url_file is None else self.url_file.name}"

    @property
    def url_secret(self) -> SecretFile | None:
        """The file of the URL, or None if the URL is in the configuration."""
        return _optional_secret_file(self.url_file, "url_file", "the URL file", "put only the URL into it")

    @property
    def headers_secret(self) -> SecretFile | None:
        """The file of the headers, if there is one."""
        return _optional_secret_file(
            self.headers_file, "headers_file", "the headers file", 'put one "Name: value" a line into it'
        )

    @property
    def secret_files(self) -> tuple[SecretFile, ...]:
        return tuple(file for file in (self.url_secret, self.headers_secret) if file is not None)

    def read_url(self) -> str:
        """Return the URL. Raises `ConfigError` if its file cannot be used or has no URL that is allowed."""
        if self.url_secret is None:
            return "" if self.url is None else self.url.get_secret_value()
        try:
            url = _validate_url(self.url_secret.read_secret())
        except units.InvalidValueError as invalid:
            where = f"{self.url_secret.description} {self.url_secret.path}"
            raise ConfigError(f"{where} has {invalid.found}; allowed: {invalid.allowed}") from None
        if strings.is_insecure_url(url) and not self.allow_insecure:
            raise ConfigError(
                f"{self.url_secret.description} {self.url_secret.path} has an http URL of another host", hint=HTTPS_HINT
            )
        return url


class Command(Notifier):
    """A program, run without a shell, with JSON on its standard input."""

    channel_kind = ChannelKind.COMMAND
    run: Annotated[tuple[str, ...], PlainValidator(_parse_command)] = Field(description="a program and its arguments")

    @property
    def label(self) -> str:
        return f"command {Path(self.run[0]).name}"


class Email(Notifier):
    """A mail that is sent through a mail server."""

    channel_kind = ChannelKind.EMAIL
    server: Annotated[str, PlainValidator(_parse_server)] = Field(
        description="the mail server, such as smtp.example.org"
    )
    #: None: 587 for starttls, 465 for tls, 25 for none.
    port: Annotated[int | None, PlainValidator(_parse_port)] = None
    security: Annotated[SmtpSecurity, PlainValidator(lambda value: units.parse_enum(value, kind=SmtpSecurity))] = (
        SmtpSecurity.STARTTLS
    )
    user: Annotated[str | None, PlainValidator(_parse_optional_text)] = None
    password_file: OptionalPath = None
    sender: Annotated[str, PlainValidator(_parse_mail_address)] = Field(description="the mail address of the sender")
    recipients: Annotated[tuple[str, ...], PlainValidator(_parse_mail_addresses)] = Field(
        description="a list of mail addresses"
    )
    #: Allow the password to be sent unencrypted to another host.
    allow_insecure: Flag = False

    @property
    def label(self) -> str:
        return f"email {self.server}"

    @property
    def password_secret(self) -> SecretFile | None:
        """The file of the password, if there is one."""
        hint = "put only the password into it, and let only the daemon read it"
        return _optional_secret_file(self.password_file, "password_file", "the password file", hint)

    @property
    def secret_files(self) -> tuple[SecretFile, ...]:
        return () if self.password_secret is None else (self.password_secret,)


class Apprise(Notifier):
    """Any service that the library apprise supports; needs the extra `notify`."""

    channel_kind = ChannelKind.APPRISE
    urls_file: Folder = Field(description="a file with one apprise URL a line")

    @property
    def label(self) -> str:
        return f"apprise {self.urls_file.name}"

    @property
    def urls_secret(self) -> SecretFile:
        """The file of the URLs."""
        return SecretFile(self.urls_file, "urls_file", "the file of apprise URLs", "put one URL a line into it")

    @property
    def secret_files(self) -> tuple[SecretFile, ...]:
        return (self.urls_secret,)


NOTIFIER_TYPES: Mapping[str, type[Notifier]] = {
    str(kind.channel_kind): kind for kind in (Webhook, Command, Email, Apprise)
}

#: Values that replace required keys that are missing or refused, so that the rest of the entry can be validated.
NOTIFIER_PLACEHOLDERS: Mapping[type[Section], Mapping[str, object]] = {
    Webhook: {"to": ChannelKind.WEBHOOK},
    Command: {"to": ChannelKind.COMMAND, "run": ("/nowhere",)},
    Email: {"to": ChannelKind.EMAIL, "server": "nowhere", "sender": "a@nowhere", "recipients": ("a@nowhere",)},
    Apprise: {"to": ChannelKind.APPRISE, "urls_file": "/nowhere"},
}
