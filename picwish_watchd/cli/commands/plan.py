"""``plan``: count the unfinished images in the inboxes, by rule, and what they would cost."""

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
    """Print the plan; submit and store nothing. Return 1 if an inbox could not be read."""
    config, reader = open_config_and_journal(args)
    now = Clock().now()
    rules = build_plan(config, reader, now)
    budget = plan_budget(config, reader, rules, now)
    images, credits = sum(rule.images for rule in rules), sum(rule.credits for rule in rules)
    if args.json:
        rows = [{key: getattr(rule, key) for key in (*_MAIN_COLUMNS, *_EXTRA_COLUMNS)} for rule in rules]
        facts = {
            "left_today": budget.left_today,
            "left_this_month": budget.left_this_month,
            "waiting": budget.waiting,
            "until": None if budget.until is None else budget.until.isoformat(),
        }
        print(json.dumps({"rules": rows, "images": images, "credits": credits, **facts}))
    else:
        _print_plan(rules)
        cost = f"{pluralize(images, 'image')} would cost {pluralize(credits, 'credit')}"
        print(f"\n{cost}{_describe_budget(config, budget)}")
        for rule in rules:
            if rule.flood:
                approve = f"`picwish-watchd approve {rule.rule}`"
                print(f"{pluralize(rule.flood, 'image')} of {rule.rule} would wait for {approve} (budget.burst)")
        if images and config.charging is Charging.AT_LEAST_ONCE:
            print("an image whose response is lost may cost more: charging is at-least-once")
    for rule in rules:
        if rule.away is not None:
            print(
                f"picwish-watchd: the inbox of {rule.rule} is not counted: {printable_path(rule.away)}", file=sys.stderr
            )
    return 1 if any(rule.away is not None for rule in rules) else 0


def _describe_budget(config: Config, budget: BudgetPlan) -> str:
    """Return the end of a sentence: what is left of the budget, and which images would wait and how long."""
    limits = (
        (budget.left_today, config.budget.per_day, "today"),
        (budget.left_this_month, config.budget.per_month, "this month"),
    )
    left = " and ".join(
        f"{left} of {pluralize(limit, 'credit')} {when}"
        for left, limit, when in limits
        if left is not None and limit is not None
    )
    if not left:
        return ""
    if not budget.waiting:
        return f"; the budget leaves {left}"
    until = (
        "for more than ten years: the budget is too small"
        if budget.until is None
        else f"until {budget.until} at the earliest"
    )
    return f"; the budget leaves {left}: {pluralize(budget.waiting, 'image')} would wait, the last {until}"


def _print_plan(rules: list[RulePlan]) -> None:
    headings = ("RULE", "IMAGES", "COPIES", "REJECTED", "NOT WHOLE", "CREDITS", "OTHER")
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
