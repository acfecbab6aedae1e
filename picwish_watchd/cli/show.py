"""``show ID``: one job with its whole history."""

import argparse
import json

from picwish_watchd.cli.source import journal
from picwish_watchd.cli.table import print_table
from picwish_watchd.errors import WatchdError
from picwish_watchd.pipeline.describe import described, described_event


def run(args: argparse.Namespace) -> int:
    """Shows it; 1 if there is no such job."""
    _, reader = journal(args)
    job = reader.get(args.id)
    if job is None:
        raise WatchdError(f"there is no job {args.id}", hint="`picwish-watchd jobs` lists them")
    history = [described_event(event) for event in reader.history(job.id)]
    facts = described(job)
    if args.json:
        print(json.dumps({**facts, "history": history}))
        return 0
    error = facts.pop("error")
    print_table(
        ("FACT", "VALUE"),
        [
            *((name, _plain(value)) for name, value in facts.items() if value is not None and name != "answer"),
            *([("error", job.problem.message)] if error and job.problem else []),
        ],
    )
    print()
    print_table(("WHEN (UTC)", "STATE", "WHAT"), [tuple(event.values()) for event in history])
    return 0


def _plain(value: object) -> object:
    return ", ".join(f"{key} {what}" for key, what in value.items()) if isinstance(value, dict) else value
