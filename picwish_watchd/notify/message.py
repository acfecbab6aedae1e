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

TEST = "test"
SUMMARY = "summary"

# characters of a message from elsewhere
_LONGEST = 300
_URL = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Notice:
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

    def payload(self) -> dict[str, object]:
        """What a webhook and a command get."""
        return {
            "id": self.id,
            "event": self.event,
            "over": self.over,
            "at": iso_utc(self.at),
            "host": host(),
            "version": __version__,
            "subject": self.subject,
            "text": self.text,
            **self.facts,
        }

    def to_json(self) -> bytes:
        """The payload as one line of ASCII."""
        return json.dumps(self.payload()).encode("ascii")


@dataclass(frozen=True, slots=True)
class Sent:
    """The other side took it."""


@dataclass(frozen=True, slots=True)
class Failed:
    """It did not go; ``reason`` holds no secret. ``again``: another try may go better.

    ``unheard``: the other side did not take it, for sure; else too many tries might tell a person the same too often.
    """

    reason: str
    again: bool
    unheard: bool = False


Outcome = Sent | Failed


@cache
def host() -> str:
    """This machine's name, for a person who looks after several."""
    return printable_path(socket.gethostname()) or "localhost"


def tame(text: str) -> str:
    """A sentence that came from elsewhere: one printable line, not too long, no secret, no address of a result."""
    text = printable_path(_URL.sub("(an address)", " ".join(redact(text).split())))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def worded(error: Exception) -> str:
    """What an error says, without numbers that mean nothing to a person."""
    return re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__


def lasted(seconds: float) -> str:
    """A duration as people say it: "2 h 10 min"."""
    minutes = int(max(0.0, seconds) / 60 + 0.5)
    if minutes < 1:
        return f"{max(0.0, seconds):.0f} s"
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (0 if days else minutes, "min")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def trial(now: float, number: int) -> Notice:
    """What `notify test` sends."""
    return Notice(
        id=f"test-{now:.0f}-{number}",
        event=TEST,
        at=now,
        subject="a test of notifications",
        text=f"This is a test. If you can read it, picwish-watchd on {host()} can reach you here.\n"
        f"It tells of: {', '.join(NotificationEvent)}.",
    )
