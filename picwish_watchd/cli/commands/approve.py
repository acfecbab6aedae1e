"""``approve RULE``: lets a flood held by `budget.burst` go; accepts the rule's folders where they lie now."""

import argparse

from picwish_watchd.cli.loading import resolve_config
from picwish_watchd.clock import Clock
from picwish_watchd.errors import UsageError
from picwish_watchd.journal.writer import Journal
from picwish_watchd.pricing import PRICES
from picwish_watchd.wording import pluralize


def run(args: argparse.Namespace) -> int:
    """Releases what was found so far; later floods are held anew."""
    config = resolve_config(args)
    rule = next((rule for rule in config.rules if rule.name == args.rule), None)
    if rule is None:
        names = ", ".join(rule.name for rule in config.rules)
        raise UsageError(f"there is no rule {args.rule!r} in {config.path}", hint=f"there are {names}")
    folders = list(rule.folders().values())
    journal = Journal.open_existing(config.journal, Clock())
    try:
        images = journal.approve(rule.name, folders)
    finally:
        journal.close()
    what = f"{pluralize(images, 'image')} of {rule.name} {'goes' if images == 1 else 'go'} on"
    print(f"{what}, for {images * PRICES[rule.type]} credits at most")
    return 0
