"""One message, for a person and for a script."""

import json
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from picwish_watchd import __version__
from picwish_watchd.config.notifiers import NotificationEvent
from picwish_watchd.redaction import redact
from picwish_watchd.wording import iso_utc, printable_path

TEST_EVENT = "test"
SUMMARY_EVENT = "summary"

# characters of a message from elsewhere
_MAX_TEXT_LENGTH = 300
_URL_PATTERN = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Message:
    """What is told. Texts hold no control characters but, in ``text``, line breaks."""

    # for the state file: a notice with a key that this version does not know is no notice
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    #: the same each time that it is sent: for who must not act on it twice
    id: str
    #: one of `Event`, or "test", or "summary" of several
    event: str
    #: Unix seconds
    at: float
    #: one line
    subject: str
    text: str
    #: for scripts; plain values
    facts: Mapping[str, object] = field(default_factory=dict)
    #: it tells that something is well again
    over: bool = False

    def build_payload(self) -> dict[str, object]:
        """What a webhook and a command get."""
        return {
            "id": self.id,
            "event": self.event,
            "over": self.over,
            "at": iso_utc(self.at),
            "host": host_name(),
            "version": __version__,
            "subject": self.subject,
            "text": self.text,
            **self.facts,
        }

    def to_json(self) -> bytes:
        """The payload as one line of ASCII."""
        return json.dumps(self.build_payload()).encode("ascii")


@dataclass(frozen=True, slots=True)
class MessageSent:
    """The other side took it."""


@dataclass(frozen=True, slots=True)
class SendFailed:
    """It did not go; ``reason`` holds no secret. ``again``: another try may go better.

    ``unheard``: the other side did not take it, for sure; else too many tries might tell a person the same too often.
    """

    reason: str
    is_retryable: bool
    not_accepted: bool = False


SendOutcome = MessageSent | SendFailed


@cache
def host_name() -> str:
    """This machine's name, for a person who looks after several."""
    return printable_path(socket.gethostname()) or "localhost"


def sanitize_message(text: str) -> str:
    """A sentence that came from elsewhere: one printable line, not too long, no secret, no address of a result."""
    text = printable_path(_URL_PATTERN.sub("(an address)", " ".join(redact(text).split())))
    return text if len(text) <= _MAX_TEXT_LENGTH else text[: _MAX_TEXT_LENGTH - 1] + "…"


def describe_exception(error: Exception) -> str:
    """What an error says, without numbers that mean nothing to a person."""
    return re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__


def format_elapsed(seconds: float) -> str:
    """A duration as people say it: "2 h 10 min"."""
    minutes = int(max(0.0, seconds) / 60 + 0.5)
    if minutes < 1:
        return f"{max(0.0, seconds):.0f} s"
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (0 if days else minutes, "min")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def build_test_message(now: float, number: int) -> Message:
    """What `notify test` sends."""
    return Message(
        id=f"test-{now:.0f}-{number}",
        event=TEST_EVENT,
        at=now,
        subject="a test of notifications",
        text=f"This is a test. If you can read it, picwish-watchd on {host_name()} can reach you here.\n"
        f"It tells of: {', '.join(NotificationEvent)}.",
    )
