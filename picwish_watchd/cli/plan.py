"""``plan``: what the inboxes hold that is not done, by rule, and what it would cost."""

import argparse
import json
import sys

from picwish_watchd.cli.source import journal
from picwish_watchd.cli.table import print_table
from picwish_watchd.clock import Clock, day_start
from picwish_watchd.files.names import shown
from picwish_watchd.pipeline.plan import Ahead, plan

_SHOWN = ("rule", "images", "copies", "rejected", "credits")
_MORE = ("not_whole", "unreadable", "held", "under_way", "away")


def run(args: argparse.Namespace) -> int:
    """Tells it; 1 if an inbox could not be looked at. Submits nothing, and writes nothing down."""
    config, reader = journal(args)
    now = Clock().now()
    rules = plan(config, reader, now)
    images, credits = sum(rule.images for rule in rules), sum(rule.credits for rule in rules)
    most = config.budget.per_day
    left = None if most is None else max(0, most - reader.credits_since(day_start(now)))
    if args.json:
        rows = [{key: getattr(rule, key) for key in (*_SHOWN, *_MORE)} for rule in rules]
        print(json.dumps({"rules": rows, "images": images, "credits": credits, "left_today": left}))
    else:
        _tell(rules)
        told = "" if left is None else f"; the budget leaves {left} of {most} credits today"
        print(f"\n{images} {'image' if images == 1 else 'images'} would cost {credits} credits{told}")
    for rule in rules:
        if rule.away is not None:
            print(f"picwish-watchd: the inbox of {rule.rule} is not counted: {shown(rule.away)}", file=sys.stderr)
    return 1 if any(rule.away is not None for rule in rules) else 0


def _tell(rules: list[Ahead]) -> None:
    headings = ("RULE", "IMAGES", "COPIES", "REJECTED", "NOT WHOLE", "CREDITS", "BESIDES")
    rows = [
        (rule.rule, rule.images, rule.copies, rule.rejected, rule.not_whole, rule.credits, _besides(rule))
        for rule in rules
    ]
    print_table(headings, rows, right=headings[1:6])


def _besides(rule: Ahead) -> str:
    facts = ((rule.under_way, "submitted"), (rule.held, "held"), (rule.unreadable, "unreadable"))
    return ", ".join([f"{number} {what}" for number, what in facts if number] + (["inbox away"] if rule.away else []))
