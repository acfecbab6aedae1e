"""The daemon's report: `from_json` reads what `to_json` wrote, and what earlier versions wrote."""

import json
from typing import Any

import pytest

from picwish_watchd import __version__
from picwish_watchd.journal.job_counts import JobCounts
from picwish_watchd.reporting.daemon_report import DaemonReport, GateReport, InboxReport, read_daemon_report
from picwish_watchd.state import State

REPORT = DaemonReport(
    pid=4711,
    version=__version__,
    started_at=1.5e9,
    refused="reload refused",
    slowed=(0.5, 1.5e9 + 60),
    config={"rules": []},
    blocked=GateReport("api_down", "PicWish does not answer"),
    inboxes={"scans": InboxReport(watching=True, observer="native"), "fotos": InboxReport(reason="/in: missing")},
    job_counts=JobCounts(9, 3, {("scans", State.DONE): 2, ("scans", State.HELD): 1}),
    credits={1.5e9: 4, 1.4e9: 6},
)

#: Written by the first version that had a report.
FIRST_REPORT = {
    "pid": 4711,
    "version": "0.0.1",
    "started_at": 1.5e9,
    "blocked": {"code": "budget", "message": "the budget of today is spent"},
    "rules": {"scans": {"watching": False, "reason": "/in: missing"}},
}


def test_a_report_is_read_as_it_was_written() -> None:
    assert DaemonReport.from_json(REPORT.to_json()) == REPORT


def test_a_report_without_problems_is_read_as_it_was_written() -> None:
    calm = REPORT._replace(refused=None, slowed=None, config=None, blocked=None, inboxes={}, job_counts=None)
    assert DaemonReport.from_json(calm.to_json()) == calm


def test_the_keys_of_a_report_stay() -> None:
    data: dict[str, Any] = json.loads(REPORT.to_json())
    assert set(data) == {
        *("pid", "version", "started_at", "refused", "slowed"),
        *("config", "blocked", "rules", "stock", "credits"),
    }
    assert set(data["blocked"]) == {"code", "message"}
    assert set(data["rules"]["scans"]) == {"watching", "reason", "observer"}


def test_the_report_of_the_first_version_is_read() -> None:
    report = DaemonReport.from_json(json.dumps(FIRST_REPORT))
    assert report.blocked == GateReport("budget", "the budget of today is spent")
    assert report.blocked.is_budget
    assert report.inboxes == {"scans": InboxReport(watching=False, reason="/in: missing", observer=None)}
    assert (report.slowed, report.refused, report.config, report.job_counts) == (None, None, None, None)
    assert report.credits == {}


def test_the_counts_of_another_version_are_not_read() -> None:
    data: dict[str, Any] = {**json.loads(REPORT.to_json()), "version": "0.0.1", "stock": {"a form": "of its own"}}
    report = DaemonReport.from_json(json.dumps(data))
    assert report.job_counts is None
    assert report.config is None
    assert report.credits == {}
    assert report.slowed == REPORT.slowed


@pytest.mark.parametrize(
    ("pid", "text"), [(None, REPORT.to_json()), (4711, None), (4711, ""), (4712, REPORT.to_json())]
)
def test_only_the_running_daemon_has_a_report(pid: int | None, text: str | None) -> None:
    assert read_daemon_report(pid, text) is None


def test_the_report_of_the_running_daemon_is_returned() -> None:
    assert read_daemon_report(4711, REPORT.to_json()) == REPORT
