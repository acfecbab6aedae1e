"""``approve RULE``: release a flood held by `budget.burst`; accept the rule's folders on their present mounts."""

import argparse

from picwish_watchd.cli.loading import resolve_config
from picwish_watchd.clock import Clock
from picwish_watchd.errors import UsageError
from picwish_watchd.journal.writer import Journal
from picwish_watchd.pricing import PRICES
from picwish_watchd.wording import pluralize


def run(args: argparse.Namespace) -> int:
    """Release the images found so far and accept the folders' mounts; later floods are held again."""
    config = resolve_config(args)
    rule = next((rule for rule in config.rules if rule.name == args.rule), None)
    if rule is None:
        names = ", ".join(rule.name for rule in config.rules)
        raise UsageError(f"there is no rule {args.rule!r} in {config.path}", hint=f"its rules are {names}")
    folders = list(rule.folders().values())
    journal = Journal.open_existing(config.journal, Clock())
    try:
        images = journal.approve(rule.name, folders)
    finally:
        journal.close()
    verb = "goes" if images == 1 else "go"
    credits = images * PRICES[rule.type]
    print(f"{pluralize(images, 'image')} of {rule.name} {verb} on, for {credits} credits at most")
    return 0
