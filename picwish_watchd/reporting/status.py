"""Build what `status` shows: whether the daemon runs, jobs, credits, problems and the forecast."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, TypedDict

from picwish_watchd import __version__
from picwish_watchd.clock import Clock, day_start, month_start
from picwish_watchd.config.summary import ConfigSummary, RuleSummary
from picwish_watchd.journal.locks import DaemonLock
from picwish_watchd.journal.status_reader import StatusReader
from picwish_watchd.pricing import PRICES
from picwish_watchd.reporting.daemon_report import DaemonReport, InboxReport, read_daemon_report
from picwish_watchd.reporting.forecast import Forecast, build_forecast
from picwish_watchd.scheduling.rate import recovered_rate
from picwish_watchd.state import State
from picwish_watchd.wording import describe_orphaned_jobs, iso_utc, render_approval_wait


class Block(TypedDict):
    """Why something is not submitted."""

    code: str
    message: str


class RuleStatus(TypedDict):
    """The state of one rule. ``jobs`` is by state."""

    name: str
    inbox: str
    watching: bool
    observer: str | None
    reason: str | None
    jobs: dict[str, int]
    blocked: Block | None


class CreditStatus(TypedDict):
    """Credits spent today and this month (local time), and the budgets."""

    today: int
    month: int
    per_day: int | None
    per_month: int | None


class RateStatus(TypedDict):
    """Requests a second: now and as configured, and why they differ."""

    now: float
    qps: float
    reason: str | None


class Status(TypedDict):
    """The object that `status --json` prints."""

    running: bool
    pid: int | None
    version: str
    jobs: dict[str, int]
    rules: list[RuleStatus]
    credits: CreditStatus
    blocked: Block | None
    refused: str | None
    left_behind: list[str]
    rate: RateStatus
    #: The fields of `Forecast`, its end (ISO 8601) and its sentence.
    forecast: dict[str, Any]


def build_status(config: ConfigSummary, reader: StatusReader, clock: Clock) -> Status:
    """Collect the status from the journal and from the running daemon's report. Raises `JournalError`."""
    pid = DaemonLock(reader.path).owner_pid()
    report = read_daemon_report(pid, reader.daemon_report())
    if report is not None and report.job_counts is not None:
        reader.adopt_counts(report.job_counts, dict(report.credits))
    counts, now = reader.counts_by_rule(), clock.now()
    totals: Counter[str] = Counter()
    for states in counts.values():
        totals.update({str(state): number for state, number in states.items()})
    slowed = None if report is None else report.slowed
    rate = _current_rate(config, slowed, now)
    gate = None if report is None else report.blocked
    return {
        "running": pid is not None,
        "pid": pid,
        "version": __version__ if report is None else report.version,
        "jobs": {str(state): totals[state] for state in State},
        "rules": _build_rules(config, reader, report, counts),
        "credits": {
            "today": reader.credits_since(day_start(now)),
            "month": reader.credits_since(month_start(now)),
            "per_day": config.per_day,
            "per_month": config.per_month,
        },
        "blocked": None if gate is None else {"code": gate.code, "message": gate.message},
        "refused": None if report is None else report.refused,
        "left_behind": describe_orphaned_jobs([rule.name for rule in config.rules], counts),
        "rate": {"now": round(rate, 2), "qps": config.qps, "reason": _describe_throttling(config, slowed, rate)},
        "forecast": _forecast_to_dict(_build_forecast(config, reader, now, pid, report, rate), now),
    }


def _build_rules(
    config: ConfigSummary,
    reader: StatusReader,
    report: DaemonReport | None,
    counts: Mapping[str, Mapping[State, int]],
) -> list[RuleStatus]:
    floods, inboxes = reader.flood_counts(), {} if report is None else report.inboxes
    rules: list[RuleStatus] = []
    for rule in config.rules:
        inbox = inboxes.get(rule.name, InboxReport())
        rules.append(
            {
                "name": rule.name,
                "inbox": rule.inbox,
                "watching": inbox.watching,
                "observer": inbox.observer,
                "reason": inbox.reason,
                "jobs": {str(state): number for state, number in counts.get(rule.name, {}).items()},
                "blocked": _describe_flood(rule, floods.get(rule.name, 0)),
            }
        )
    return rules


def _build_forecast(
    config: ConfigSummary, reader: StatusReader, now: float, pid: int | None, report: DaemonReport | None, rate: float
) -> Forecast:
    gate = None if report is None else report.blocked
    stopped = "the daemon does not run" if pid is None else None if gate is None else gate.message
    collecting = pid is not None and (gate is None or gate.is_budget)
    return build_forecast(
        config, reader, now, counts=reader.counts_by_rule(), rate=rate, stopped=stopped, collecting=collecting
    )


def _forecast_to_dict(forecast: Forecast, now: float) -> dict[str, Any]:
    has_end = forecast.images and forecast.seconds is not None
    return {
        **forecast._asdict(),
        "end": iso_utc(now + forecast.seconds) if has_end and forecast.seconds is not None else None,
        "text": forecast.render(),
    }


def _current_rate(config: ConfigSummary, slowed: tuple[float, float] | None, now: float) -> float:
    """Return the requests a second that the daemon allows itself now."""
    return config.qps if slowed is None else recovered_rate(config.qps, slowed[0], now - slowed[1])


def _describe_throttling(config: ConfigSummary, slowed: tuple[float, float] | None, rate: float) -> str | None:
    if slowed is None or rate >= config.qps:
        return None
    return (
        f"{rate:.2g} requests a second instead of {config.qps:g}, because PicWish answered 429 (too many requests) "
        f"at {iso_utc(slowed[1])}: another program may use the same key; the rate recovers automatically"
    )


def _describe_flood(rule: RuleSummary, images: int) -> Block | None:
    if not images:
        return None
    return {"code": "burst", "message": render_approval_wait(images, PRICES[rule.type], rule.name)}
