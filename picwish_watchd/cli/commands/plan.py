"""``plan``: what the inboxes hold that is not done, by rule, and what it would cost."""

import argparse
import json
import sys

from picwish_watchd.cli.loading import open_config_and_journal
from picwish_watchd.cli.table import print_table
from picwish_watchd.clock import Clock
from picwish_watchd.config.model import Config
from picwish_watchd.config.schema import Charging
from picwish_watchd.reporting.plan import BudgetPlan, RulePlan, build_plan, plan_budget
from picwish_watchd.wording import pluralize, printable_path

_MAIN_COLUMNS = ("rule", "images", "copies", "rejected", "credits")
_EXTRA_COLUMNS = ("not_whole", "unreadable", "held", "skipped", "flood", "under_way", "away")


def run(args: argparse.Namespace) -> int:
    """Tells it; 1 if an inbox could not be looked at. Submits nothing, and writes nothing down."""
    config, reader = open_config_and_journal(args)
    now = Clock().now()
    rules = build_plan(config, reader, now)
    found = plan_budget(config, reader, rules, now)
    images, credits = sum(rule.images for rule in rules), sum(rule.credits for rule in rules)
    if args.json:
        rows = [{key: getattr(rule, key) for key in (*_MAIN_COLUMNS, *_EXTRA_COLUMNS)} for rule in rules]
        facts = {
            "left_today": found.left_today,
            "left_this_month": found.left_this_month,
            "waiting": found.waiting,
            "until": None if found.until is None else found.until.isoformat(),
        }
        print(json.dumps({"rules": rows, "images": images, "credits": credits, **facts}))
    else:
        _print_plan(rules)
        print(
            f"\n{pluralize(images, 'image')} would cost {pluralize(credits, 'credit')}{_describe_budget(config, found)}"
        )
        for rule in rules:
            if rule.flood:
                approve = f"`picwish-watchd approve {rule.rule}`"
                print(f"{pluralize(rule.flood, 'image')} of {rule.rule} would wait for {approve} (budget.burst)")
        if images and config.charging is Charging.AT_LEAST_ONCE:
            print("an image whose answer is lost may cost more: charging is at-least-once")
    for rule in rules:
        if rule.away is not None:
            print(
                f"picwish-watchd: the inbox of {rule.rule} is not counted: {printable_path(rule.away)}", file=sys.stderr
            )
    return 1 if any(rule.away is not None for rule in rules) else 0


def _describe_budget(config: Config, found: BudgetPlan) -> str:
    """What the budget leaves, and what would wait for how long."""
    limits = (
        (found.left_today, config.budget.per_day, "today"),
        (found.left_this_month, config.budget.per_month, "this month"),
    )
    left = " and ".join(
        f"{left} of {pluralize(most, 'credit')} {when}"
        for left, most, when in limits
        if left is not None and most is not None
    )
    if not left:
        return ""
    if not found.waiting:
        return f"; the budget leaves {left}"
    until = (
        "for more than ten years: the budget is too small"
        if found.until is None
        else f"until {found.until} at the earliest"
    )
    return f"; the budget leaves {left}: {pluralize(found.waiting, 'image')} would wait, the last {until}"


def _print_plan(rules: list[RulePlan]) -> None:
    headings = ("RULE", "IMAGES", "COPIES", "REJECTED", "NOT WHOLE", "CREDITS", "BESIDES")
    rows = [
        (rule.rule, rule.images, rule.copies, rule.rejected, rule.not_whole, rule.credits, _describe_extras(rule))
        for rule in rules
    ]
    print_table(headings, rows, right=headings[1:6])


def _describe_extras(rule: RulePlan) -> str:
    facts = (
        (rule.under_way, "submitted"),
        (rule.held, "held"),
        (rule.skipped, "skipped"),
        (rule.unreadable, "unreadable"),
    )
    return ", ".join([f"{number} {what}" for number, what in facts if number] + (["inbox away"] if rule.away else []))
