"""``retry``: a person's word that jobs which ended badly may go on, and may cost again what must be paid again."""

import argparse
from collections import Counter

from picwish_watchd.cli.loading import resolve_config
from picwish_watchd.clock import Clock
from picwish_watchd.errors import UsageError, WatchdError
from picwish_watchd.job import Job, State
from picwish_watchd.journal.writer import Journal
from picwish_watchd.outbox.spool import Spool, spool_folder
from picwish_watchd.pipeline.retry import RetryAction, RetryResult, retry_jobs
from picwish_watchd.pricing import PRICES
from picwish_watchd.wording import pluralize

_ACTION_TEXTS = {
    RetryAction.DELIVER: "delivered from the spool, at no cost",
    RetryAction.QUERY: "asked for at PicWish first, and paid again only if gone",
    RetryAction.SUBMIT: "submitted again",
    RetryAction.WAIT: "copies of these, at no cost",
    RetryAction.REVALIDATE: "looked at again",
}


def run(args: argparse.Namespace) -> int:
    """Puts them back in the queue; 1 if a named job does not exist or there is nothing to retry in it."""
    if bool(args.id) == bool(args.state):
        raise UsageError("name jobs by their ID, or all of one --state", hint="picwish-watchd retry 12 13")
    if args.rule and not args.state:
        raise UsageError("--rule goes with --state", hint="picwish-watchd retry --state held --rule scans")
    config = resolve_config(args)
    journal = Journal.open_existing(config.journal, Clock())
    try:
        jobs = _select_jobs(journal, args)
        prices = {rule.name: PRICES[rule.type] for rule in config.rules}
        retried = retry_jobs(journal, Spool(spool_folder(config.journal)), jobs, prices)
    finally:
        journal.close()
    _print_results(retried)
    left = sorted({job.id for job in jobs} - {one.job.id for one in retried})
    if args.id and left:
        raise WatchdError(
            f"nothing to retry in job {', '.join(map(str, left))}",
            hint="only rejected, failed and held jobs can be retried; `picwish-watchd show ID` tells how one stands",
        )
    return 0


def _select_jobs(journal: Journal, args: argparse.Namespace) -> list[Job]:
    if args.state:
        return journal.jobs(states=[State(args.state)], rule=args.rule, oldest_first=True)
    found = {number: journal.get(number) for number in dict.fromkeys(args.id)}
    missing = [str(number) for number, job in found.items() if job is None]
    if missing:
        raise WatchdError(
            f"there is no job {', '.join(missing)}; nothing was changed", hint="see `picwish-watchd jobs`"
        )
    return [job for job in found.values() if job is not None]


def _print_results(retried: list[RetryResult]) -> None:
    for way, number in Counter(one.action for one in retried).items():
        print(f"{number} {_ACTION_TEXTS[way]}")
    credits = sum(one.credits for one in retried)
    jobs = f"{pluralize(len(retried), 'job')} {'goes' if len(retried) == 1 else 'go'} on"
    print(f"{jobs}, for {pluralize(credits, 'credit')} at most")
