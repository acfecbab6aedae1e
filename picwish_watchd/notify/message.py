"""One message, for a person and for a script, and what sending it can result in."""

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

# Characters of a sentence that came from elsewhere; longer ones are cut.
_MAX_TEXT_LENGTH = 300
_URL_PATTERN = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Message:
    """One notification. Its texts hold no control characters except line breaks in ``text``."""

    # For the state file: a message with a key that this version does not know is not read.
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    #: The same at each try, so that a receiver can recognise repetitions.
    id: str
    #: A `NotificationEvent`, or "test", or "summary" for several messages in one.
    event: str
    #: Unix seconds.
    at: float
    #: One line.
    subject: str
    text: str
    #: Details for scripts, as plain values.
    facts: Mapping[str, object] = field(default_factory=dict)
    #: Whether it reports the end of a problem.
    over: bool = False

    def build_payload(self) -> dict[str, object]:
        """Return what a webhook and a command receive, as plain values."""
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
        """Return the payload as one line of ASCII."""
        return json.dumps(self.build_payload()).encode("ascii")


@dataclass(frozen=True, slots=True)
class MessageSent:
    """The other side accepted the message."""


@dataclass(frozen=True, slots=True)
class SendFailed:
    """The message was not delivered, or it is unknown whether it was. ``reason`` contains no secret."""

    reason: str
    #: Another try may succeed.
    is_retryable: bool
    #: The other side surely did not receive it; if not, many tries could repeat the message to a person.
    not_accepted: bool = False


SendOutcome = MessageSent | SendFailed


@cache
def host_name() -> str:
    """Return this machine's name in printable form, for people with several machines."""
    return printable_path(socket.gethostname()) or "localhost"


def sanitize_message(text: str) -> str:
    """Return a sentence from elsewhere as one printable line of at most 300 characters, without secrets and URLs."""
    text = printable_path(_URL_PATTERN.sub("(an address)", " ".join(redact(text).split())))
    return text if len(text) <= _MAX_TEXT_LENGTH else text[: _MAX_TEXT_LENGTH - 1] + "…"


def describe_exception(error: Exception) -> str:
    """Return the message of an error without its errno, which means nothing to a person."""
    return re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__


def format_elapsed(seconds: float) -> str:
    """Return a duration as people write it: "45 s", "2 h 10 min", "3 d 4 h"."""
    minutes = int(max(0.0, seconds) / 60 + 0.5)
    if minutes < 1:
        return f"{max(0.0, seconds):.0f} s"
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (0 if days else minutes, "min")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def build_test_message(now: float, number: int) -> Message:
    """Build the message that `notify test` sends through the notifier with this number."""
    return Message(
        id=f"test-{now:.0f}-{number}",
        event=TEST_EVENT,
        at=now,
        subject="a test of notifications",
        text=f"This is a test. If you can read it, picwish-watchd on {host_name()} can reach you here.\n"
        f"It sends messages for these events: {', '.join(NotificationEvent)}.",
    )
