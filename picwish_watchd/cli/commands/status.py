"""``status``: whether the daemon runs, jobs by state and rule, credits, and what is wrong."""

import argparse
import json

from picwish_watchd.cli.journal_views import open_summary_and_status
from picwish_watchd.cli.table import print_table
from picwish_watchd.clock import Clock
from picwish_watchd.reporting.status import Status, build_status
from picwish_watchd.wording import render_spent


def run(args: argparse.Namespace) -> int:
    """Print the status and return the exit code."""
    summary, reader = open_summary_and_status(args)
    status = build_status(summary, reader, Clock())
    if args.json:
        print(json.dumps(status))
    else:
        _print_status(status)
    return 0


def _print_status(status: Status) -> None:
    print(f"running    pid {status['pid']}, version {status['version']}" if status["running"] else "running    no")
    spent = status["credits"]
    today, month = render_spent(spent["today"], spent["per_day"]), render_spent(spent["month"], spent["per_month"])
    print(f"credits    {today} today, {month} this month")
    if status["blocked"]:
        print(f"blocked    {status['blocked']['message']}")
    if status["rate"]["reason"]:
        print(f"rate       {status['rate']['reason']}")
    if status["forecast"]["text"]:
        print(f"backlog    {status['forecast']['text']}")
    if status["refused"]:
        print(f"config     {status['refused']}")
    for sentence in status["left_behind"]:
        print(f"waiting    {sentence}")
    print()
    for rule in status["rules"]:
        if rule["blocked"]:
            print(f"held       {rule['name']}: {rule['blocked']['message']}")
    rows = [
        (
            rule["name"],
            rule["inbox"],
            "yes" if rule["watching"] else rule["reason"] or "no",
            ", ".join(f"{number} {state}" for state, number in rule["jobs"].items()) or "none",
        )
        for rule in status["rules"]
    ]
    print_table(("RULE", "INBOX", "WATCHED", "JOBS"), rows)
