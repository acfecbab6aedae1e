"""``jobs``: list the jobs, newest first."""

import argparse
import json

from picwish_watchd.cli.journal_views import open_journal_view
from picwish_watchd.cli.table import print_table
from picwish_watchd.job import State
from picwish_watchd.job_json import job_to_dict
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.wording import iso_utc


def run(args: argparse.Namespace) -> int:
    """Print the jobs in the state and of the rule that ``args`` names, or all."""
    reader = open_journal_view(args, JournalReader)
    jobs = reader.jobs(states=[State(args.state)] if args.state else [], rule=args.rule)
    if args.json:
        for job in jobs:
            print(json.dumps(job_to_dict(job)))
        return 0
    rows = [
        (
            job.id,
            job.rule,
            job.state,
            job.credits + job.credits_in_doubt,
            (iso_utc(job.created_at) or "")[:19].replace("T", " "),
            job.relative,
            job.problem.message if job.problem else job.note,
        )
        for job in jobs
    ]
    print_table(("ID", "RULE", "STATE", "CREDITS", "FOUND (UTC)", "FILE", "REASON"), rows, right=("ID", "CREDITS"))
    return 0
