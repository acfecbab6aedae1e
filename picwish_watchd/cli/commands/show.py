"""``show ID``: show one job with its whole history."""

import argparse
import json
import math

from picwish_watchd.cli.journal_views import open_journal_view
from picwish_watchd.cli.table import print_table
from picwish_watchd.errors import WatchdError
from picwish_watchd.job import Job, JobEvent, State
from picwish_watchd.job_json import event_to_dict, job_to_dict
from picwish_watchd.journal.reader import JournalReader


def run(args: argparse.Namespace) -> int:
    """Print the job and its history. Raises `WatchdError` (exit code 1) if there is no such job."""
    reader = open_journal_view(args, JournalReader)
    job = reader.get(args.id)
    if job is None:
        raise WatchdError(f"there is no job {args.id}", hint="`picwish-watchd jobs` lists them")
    events = reader.history(job.id)
    history = [event_to_dict(event) for event in events]
    facts = job_to_dict(job)
    pruned = _is_history_pruned(job, events)
    if args.json:
        print(json.dumps({**facts, "history": history, "history_removed": pruned}))
        return 0
    error = facts.pop("error")
    print_table(
        ("FACT", "VALUE"),
        [
            *((name, _flatten_value(value)) for name, value in facts.items() if value is not None and name != "answer"),
            *([("error", job.problem.message)] if error and job.problem else []),
        ],
    )
    print()
    if pruned:
        print(f"job {job.id} is older than `keep`: only the end of its history is left; all its charges are kept\n")
    print_table(("WHEN (UTC)", "STATE", "WHAT"), [tuple(event.values()) for event in history])
    return 0


def _is_history_pruned(job: Job, events: list[JobEvent]) -> bool:
    """Return whether the beginning of the history was removed.

    A complete history begins with `queued`, or ends at the moment when the file was found.
    """
    began = min(job.created_at + 1, job.submitted_at or math.inf)
    return not events or (events[0].state is not State.QUEUED and events[0].at > began)


def _flatten_value(value: object) -> object:
    return ", ".join(f"{key} {what}" for key, what in value.items()) if isinstance(value, dict) else value
