"""``retry``: continue jobs that ended badly; a person decides that they may cost credits again."""

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
    RetryAction.QUERY: "looked up at PicWish first, and paid again only if gone",
    RetryAction.SUBMIT: "submitted again",
    RetryAction.WAIT: "copies of these, at no cost",
    RetryAction.REVALIDATE: "checked again",
}


def run(args: argparse.Namespace) -> int:
    """Put the jobs that ``args`` names back into the queue and print what happens to them.

    Raises `WatchdError` if a named job does not exist or cannot be retried.
    """
    if bool(args.id) == bool(args.state):
        raise UsageError("give either the IDs of jobs or a --state", hint="for example: picwish-watchd retry 12 13")
    if args.rule and not args.state:
        raise UsageError("--rule needs --state", hint="for example: picwish-watchd retry --state held --rule scans")
    config = resolve_config(args)
    journal = Journal.open_existing(config.journal, Clock())
    try:
        jobs = _select_jobs(journal, args)
        prices = {rule.name: PRICES[rule.type] for rule in config.rules}
        retried = retry_jobs(journal, Spool(spool_folder(config.journal)), jobs, prices)
    finally:
        journal.close()
    _print_results(retried)
    ignored = sorted({job.id for job in jobs} - {result.job.id for result in retried})
    if args.id and ignored:
        raise WatchdError(
            f"nothing to retry in job {', '.join(map(str, ignored))}",
            hint="only rejected, failed and held jobs can be retried; `picwish-watchd show ID` shows the state of one",
        )
    return 0


def _select_jobs(journal: Journal, args: argparse.Namespace) -> list[Job]:
    if args.state:
        return journal.jobs(states=[State(args.state)], rule=args.rule, oldest_first=True)
    jobs = {number: journal.get(number) for number in dict.fromkeys(args.id)}
    missing = [str(number) for number, job in jobs.items() if job is None]
    if missing:
        raise WatchdError(
            f"there is no job {', '.join(missing)}; nothing was changed", hint="see `picwish-watchd jobs`"
        )
    return [job for job in jobs.values() if job is not None]


def _print_results(retried: list[RetryResult]) -> None:
    for action, number in Counter(result.action for result in retried).items():
        print(f"{number} {_ACTION_TEXTS[action]}")
    credits = sum(result.credits for result in retried)
    jobs = f"{pluralize(len(retried), 'job')} {'goes' if len(retried) == 1 else 'go'} on"
    print(f"{jobs}, for {pluralize(credits, 'credit')} at most")
