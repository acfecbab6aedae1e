"""``notify test``: does a message reach the people whom `notify:` names?"""

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
    """Sends a test through each, or the one that is named; a line for each, and 1 if one did not go."""
    config = resolve_config(args)
    # what libraries log would stand between the lines
    configure_logging("error", "console", sys.stderr)
    if not config.notify:
        raise WatchdError(
            f"nobody is to be told: {config.path} has no notify:",
            hint="add an entry, such as - {to: email, server: ..., sender: ..., recipients: [...]}; "
            "config.example.yaml shows all ways",
        )
    if args.to is not None and not 1 <= args.to <= len(config.notify):
        raise UsageError(f"there is no notifier {args.to}", hint=f"they are counted from 1 to {len(config.notify)}")
    chosen = {n: each for n, each in enumerate(config.notify, 1) if args.to in (None, n)}
    lanes = KeyedExecutor()
    outcomes = asyncio.run(_send_tests(lanes, chosen))
    for number, outcome in outcomes.items():
        label = printable_path(chosen[number].label)
        print(
            f"sent  {number} {label}"
            if isinstance(outcome, MessageSent)
            else f"FAIL  {number} {label}: {outcome.reason}"
        )
    code = 0 if all(isinstance(outcome, MessageSent) for outcome in outcomes.values()) else 1
    lanes.close()
    if lanes.has_running:
        # a thread waits for a server that hangs, and the interpreter would wait for it
        sys.stdout.flush()
        os._exit(code)
    return code


async def _send_tests(lanes: KeyedExecutor, chosen: dict[int, Notifier]) -> dict[int, SendOutcome]:
    now = Clock().now()
    tries = [send_with_timeout(lanes, notifier, build_test_message(now, number)) for number, notifier in chosen.items()]
    return dict(zip(chosen, await asyncio.gather(*tries), strict=True))
