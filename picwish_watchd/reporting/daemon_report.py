"""What the running daemon reports about itself through the journal, for commands that look from outside.

These are named tuples: importing dataclasses would take a fifth of the time of `status`.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from picwish_watchd import __version__
from picwish_watchd.journal.job_counts import JobCounts


class GateReport(NamedTuple):
    """Why nothing is submitted: a code for scripts and a sentence for people."""

    code: str
    message: str

    @property
    def is_budget(self) -> bool:
        """Whether only the budget is spent. Results of earlier submissions still come then."""
        return self.code == "budget"


class InboxReport(NamedTuple):
    """How the daemon watches the inbox of one rule."""

    #: Whether the inbox was scanned and can be scanned now.
    watching: bool = False
    #: Why the inbox cannot be scanned.
    reason: str | None = None
    #: "native", "partial" or "polling"; None before the first scan.
    observer: str | None = None


class DaemonReport(NamedTuple):
    """The daemon's report about itself. Times are Unix seconds."""

    pid: int
    version: str
    started_at: float
    #: Why the last reload changed nothing.
    refused: str | None
    #: The rate (requests a second) after the last 429, and when that was; None at the full rate.
    slowed: tuple[float, float] | None
    #: The summary of the configuration, as `Config.summary_to_json` wrote it.
    config: Mapping[str, Any] | None
    blocked: GateReport | None
    #: By the name of the rule.
    inboxes: Mapping[str, InboxReport]
    job_counts: JobCounts | None
    #: Credits spent, by the moment since which they are counted.
    credits: Mapping[float, int]

    def to_json(self) -> str:
        """Return the text that `from_json` of the same version reads."""
        return json.dumps(
            {
                "pid": self.pid,
                "version": self.version,
                "started_at": self.started_at,
                "refused": self.refused,
                "slowed": self.slowed,
                "config": self.config,
                "blocked": None if self.blocked is None else self.blocked._asdict(),
                "rules": {name: inbox._asdict() for name, inbox in self.inboxes.items()},
                "stock": None if self.job_counts is None else self.job_counts.to_json(),
                "credits": list(self.credits.items()),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the report in ``text``. Counts are read only if this version wrote them: their form may change."""
        data: dict[str, Any] = json.loads(text)
        slowed, blocked = data.get("slowed"), data.get("blocked")
        is_same_version = data.get("version") == __version__
        counts = data.get("stock") if is_same_version else None
        return cls(
            pid=data["pid"],
            version=data.get("version", ""),
            started_at=data.get("started_at", 0.0),
            refused=data.get("refused"),
            slowed=None if slowed is None else (slowed[0], slowed[1]),
            config=data.get("config") if is_same_version else None,
            blocked=None if blocked is None else GateReport(blocked["code"], blocked["message"]),
            inboxes={name: _parse_inbox(inbox) for name, inbox in data.get("rules", {}).items()},
            job_counts=None if counts is None else JobCounts.from_json(counts),
            credits=dict(data.get("credits", ())) if is_same_version else {},
        )


def _parse_inbox(data: Mapping[str, Any]) -> InboxReport:
    return InboxReport(data.get("watching", False), data.get("reason"), data.get("observer"))


def read_daemon_report(pid: int | None, text: str | None) -> DaemonReport | None:
    """Return the report in ``text`` if the running daemon, the process ``pid``, wrote it; else None.

    ``pid`` is None if no daemon runs. The report of a daemon that has just started is still that of the one before it.
    """
    if pid is None or not text:
        return None
    report = DaemonReport.from_json(text)
    return report if report.pid == pid else None
