"""``status``: whether the daemon runs, jobs by state and rule, credits, and what is wrong."""

import argparse
import json
from collections import Counter

from picwish_watchd import __version__
from picwish_watchd.cli.journal_views import open_summary_and_status, read_daemon_report
from picwish_watchd.cli.table import print_table
from picwish_watchd.clock import Clock, day_start, month_start
from picwish_watchd.config.summary import ConfigSummary, RuleSummary
from picwish_watchd.journal.job_counts import JobCounts
from picwish_watchd.journal.locks import DaemonLock
from picwish_watchd.journal.status_reader import StatusReader
from picwish_watchd.pricing import PRICES
from picwish_watchd.reporting.forecast import build_forecast
from picwish_watchd.scheduling.rate import recovered_rate
from picwish_watchd.state import State
from picwish_watchd.wording import describe_orphaned_jobs, iso_utc, render_approval_wait, render_spent


def run(args: argparse.Namespace) -> int:
    """Tells it."""
    outline, reader = open_summary_and_status(args)
    facts = build_status(outline, reader, Clock())
    if args.json:
        print(json.dumps(facts))
        return 0
    _print_status(facts)
    return 0


def build_status(outline: ConfigSummary, reader: StatusReader, clock: Clock) -> dict[str, object]:
    """All of it as plain values, as `status --json` prints them."""
    pid = DaemonLock(reader.path).owner_pid()
    told = read_daemon_report(pid, reader)
    if told.get("version") == __version__ and "stock" in told:
        reader.adopt_counts(JobCounts.from_json(told["stock"]), dict(told["credits"]))
    counts = reader.counts_by_rule()
    totals: Counter[str] = Counter()
    for states in counts.values():
        totals.update({str(state): number for state, number in states.items()})
    floods = reader.flood_counts()
    now, blocked = clock.now(), told.get("blocked")
    rate = _current_rate(outline, told.get("slowed"), now)
    stopped = "the daemon does not run" if pid is None else blocked and blocked["message"]
    collecting = pid is not None and (not blocked or blocked["code"] == "budget")
    ahead = build_forecast(outline, reader, now, counts=counts, rate=rate, stopped=stopped, collecting=collecting)
    watched = told.get("rules", {})
    return {
        "running": pid is not None,
        "pid": pid,
        "version": told.get("version", __version__),
        "jobs": {str(state): totals[state] for state in State},
        "rules": [
            {
                "name": rule.name,
                "inbox": rule.inbox,
                "watching": watched.get(rule.name, {}).get("watching", False),
                "observer": watched.get(rule.name, {}).get("observer"),
                "reason": watched.get(rule.name, {}).get("reason"),
                "jobs": {str(state): number for state, number in counts.get(rule.name, {}).items()},
                "blocked": _describe_flood(rule, floods.get(rule.name, 0)),
            }
            for rule in outline.rules
        ],
        "credits": {
            "today": reader.credits_since(day_start(now)),
            "month": reader.credits_since(month_start(now)),
            "per_day": outline.per_day,
            "per_month": outline.per_month,
        },
        "blocked": blocked,
        "refused": told.get("refused"),
        "left_behind": describe_orphaned_jobs([rule.name for rule in outline.rules], counts),
        "rate": {
            "now": round(rate, 2),
            "qps": outline.qps,
            "reason": _describe_throttling(outline, told.get("slowed"), rate),
        },
        "forecast": {
            **ahead._asdict(),
            "end": iso_utc(now + ahead.seconds) if ahead.images and ahead.seconds is not None else None,
            "text": ahead.render(),
        },
    }


def _current_rate(outline: ConfigSummary, slowed: tuple[float, float] | None, now: float) -> float:
    """Requests a second that the daemon allows itself at this moment."""
    return outline.qps if slowed is None else recovered_rate(outline.qps, slowed[0], now - slowed[1])


def _describe_throttling(outline: ConfigSummary, slowed: tuple[float, float] | None, rate: float) -> str | None:
    if slowed is None or rate >= outline.qps:
        return None
    return (
        f"{rate:.2g} requests a second instead of {outline.qps:g}, for PicWish said at {iso_utc(slowed[1])} that "
        "there were too many (429): another program may use the same key; the rate creeps back by itself"
    )


def _describe_flood(rule: RuleSummary, images: int) -> dict[str, str] | None:
    if not images:
        return None
    return {"code": "burst", "message": render_approval_wait(images, PRICES[rule.type], rule.name)}


def _print_status(facts: dict[str, object]) -> None:
    print(f"running    pid {facts['pid']}, version {facts['version']}" if facts["running"] else "running    no")
    spent = facts["credits"]
    assert isinstance(spent, dict)
    today, month = render_spent(spent["today"], spent["per_day"]), render_spent(spent["month"], spent["per_month"])
    print(f"credits    {today} today, {month} this month")
    if facts["blocked"]:
        assert isinstance(facts["blocked"], dict)
        print(f"blocked    {facts['blocked']['message']}")
    rate, ahead = facts["rate"], facts["forecast"]
    assert isinstance(rate, dict)
    assert isinstance(ahead, dict)
    if rate["reason"]:
        print(f"rate       {rate['reason']}")
    if ahead["text"]:
        print(f"backlog    {ahead['text']}")
    if facts["refused"]:
        print(f"config     {facts['refused']}")
    assert isinstance(facts["left_behind"], list)
    for told in facts["left_behind"]:
        print(f"waiting    {told}")
    print()
    rules = facts["rules"]
    assert isinstance(rules, list)
    for rule in rules:
        if rule["blocked"]:
            print(f"held       {rule['name']}: {rule['blocked']['message']}")
    rows = [
        (
            rule["name"],
            rule["inbox"],
            "yes" if rule["watching"] else rule["reason"] or "no",
            ", ".join(f"{number} {state}" for state, number in rule["jobs"].items()) or "none",
        )
        for rule in rules
    ]
    print_table(("RULE", "INBOX", "WATCHED", "JOBS"), rows)
