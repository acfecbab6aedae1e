"""``notify test``: send a test message through the notifiers of `notify:`."""

import argparse
import asyncio
import os
import sys

from picwish_watchd.cli.loading import resolve_config
from picwish_watchd.clock import Clock
from picwish_watchd.config.notifiers import Notifier
from picwish_watchd.errors import UsageError, WatchdError
from picwish_watchd.log.setup import configure_logging
from picwish_watchd.notify.channels.send import send_with_timeout
from picwish_watchd.notify.message import MessageSent, SendOutcome, build_test_message
from picwish_watchd.runtime.keyed_executor import KeyedExecutor
from picwish_watchd.wording import printable_path


def run(args: argparse.Namespace) -> int:
    """Send a test message through each notifier, or through the one of ``--to``; print a line for each.

    Return 1 if a message was not sent.
    """
    config = resolve_config(args)
    # Log lines of libraries would appear between ours.
    configure_logging("error", "console", sys.stderr)
    if not config.notify:
        raise WatchdError(
            f"there are no notifiers: {config.path} has no notify:",
            hint="add an entry, such as - {to: email, server: ..., sender: ..., recipients: [...]}; "
            "config.example.yaml shows all kinds",
        )
    if args.to is not None and not 1 <= args.to <= len(config.notify):
        raise UsageError(f"there is no notifier {args.to}", hint=f"they are numbered from 1 to {len(config.notify)}")
    chosen = {n: each for n, each in enumerate(config.notify, 1) if args.to in (None, n)}
    executor = KeyedExecutor()
    outcomes = asyncio.run(_send_tests(executor, chosen))
    for number, outcome in outcomes.items():
        label = printable_path(chosen[number].label)
        print(
            f"sent  {number} {label}"
            if isinstance(outcome, MessageSent)
            else f"FAIL  {number} {label}: {outcome.reason}"
        )
    code = 0 if all(isinstance(outcome, MessageSent) for outcome in outcomes.values()) else 1
    executor.close()
    if executor.has_unfinished_calls:
        # A thread waits for a server that hangs; the interpreter would wait for the thread.
        sys.stdout.flush()
        os._exit(code)
    return code


async def _send_tests(executor: KeyedExecutor, chosen: dict[int, Notifier]) -> dict[int, SendOutcome]:
    now = Clock().now()
    attempts = [
        send_with_timeout(executor, notifier, build_test_message(now, number)) for number, notifier in chosen.items()
    ]
    return dict(zip(chosen, await asyncio.gather(*attempts), strict=True))
