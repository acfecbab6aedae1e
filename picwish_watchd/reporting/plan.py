"""Count what the inboxes hold that is not done, and what it would cost. Nothing is submitted or written."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path

from picwish_watchd.config.model import Config
from picwish_watchd.config.schema import Budget, Rule
from picwish_watchd.fs.hang_guard import find_unresponsive_paths
from picwish_watchd.fs.mounts import AcceptedMount
from picwish_watchd.fs.safe_open import stamp_of, stat_file
from picwish_watchd.fs.verdicts import Changed, Incomplete, Missing, Unreadable
from picwish_watchd.images.inspect import ValidImage
from picwish_watchd.images.link_files import ValidLink
from picwish_watchd.inbox.name_filter import NameFilter
from picwish_watchd.inbox.scanner import InboxUnavailable, Scanner
from picwish_watchd.job import UNFINISHED, Job, NewJob, State
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.outbox.availability import describe_hang, why_unavailable
from picwish_watchd.pipeline.admission import (
    build_new_job,
    forbidden_link_targets,
    has_settle_expired,
    is_unchanged,
    validate_file,
)
from picwish_watchd.pipeline.duplicates import find_first_job, mark_own_results
from picwish_watchd.pipeline.result_names import find_existing_result
from picwish_watchd.pricing import PRICES
from picwish_watchd.scheduling.credit_budget import CreditBudget

# Days for which a budget is planned; an end further away is not given.
_MAX_PLAN_DAYS = 3660


@dataclass(slots=True)
class RulePlan:
    """The work that is left for one rule, in numbers of files; queued jobs are counted with them."""

    rule: str
    #: To be paid for.
    images: int = 0
    #: Delivered from a result that is, or will be, there; and our own results that were put into the inbox.
    copies: int = 0
    #: Would be rejected as they are.
    rejected: int = 0
    #: What the images cost.
    credits: int = 0
    #: Still being written, so not validated yet.
    not_whole: int = 0
    #: Files and subfolders that cannot be read.
    unreadable: int = 0
    #: Jobs that wait for a person, and new copies of them.
    held: int = 0
    #: Cost nothing, because a result of their name is there already (`if_exists: skip`).
    skipped: int = 0
    #: Images and copies that `budget.burst` would hold until `approve`.
    flood: int = 0
    #: Submitted already: nothing more is paid for them.
    under_way: int = 0
    #: Why the inbox could not be scanned.
    away: str | None = None
    #: SHA-256 of each content that was counted -> whether it is held.
    counted_contents: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BudgetPlan:
    """What of a plan the budget allows. Credits are None where there is no limit."""

    #: Credits.
    left_today: int | None
    #: Credits.
    left_this_month: int | None
    #: Images that are not paid today because the budget is used up.
    waiting: int = 0
    #: The earliest day on which the last of them is paid. None: today, or later than can be planned.
    until: date | None = None


@dataclass(slots=True)
class _PurchaseQueue:
    """The images of one rule that are to be paid for."""

    priority: int
    #: Credits for each image.
    price: int
    images: int


@dataclass(frozen=True, slots=True)
class _PlanRequest:
    """What is planned: one rule, at one moment (``now``, Unix seconds)."""

    config: Config
    journal: JournalReader
    rule: Rule
    now: float
    #: Folders that do not respond.
    unresponsive_paths: frozenset[Path]


def build_plan(config: Config, journal: JournalReader, now: float) -> list[RulePlan]:
    """Return the plan of each rule of the configuration. ``now`` is in Unix seconds.

    Files whose stamp the journal knows are not read.
    """
    unresponsive = find_unresponsive_paths(folder for rule in config.rules for folder in rule.folders().values())
    return [_plan_rule(_PlanRequest(config, journal, rule, now, unresponsive)) for rule in config.rules]


def plan_budget(config: Config, journal: JournalReader, rules: Sequence[RulePlan], now: float) -> BudgetPlan:
    """Return what can be paid today and when the rest: highest priority first, rules of equal priority in turn."""
    budget = config.budget
    today, month = CreditBudget(budget, now).remaining(journal)
    limits = [credits for credits in (today, month) if credits is not None]
    if not limits:
        return BudgetPlan(None, None)
    priorities = {rule.name: (rule.priority, PRICES[rule.type]) for rule in config.rules}
    queues = [_PurchaseQueue(*priorities[plan.rule], plan.images) for plan in rules]
    paid = _take_affordable(queues, min(limits))
    spent = paid if month is None or budget.per_month is None else budget.per_month - month + paid
    return BudgetPlan(
        today, month, sum(queue.images for queue in queues), _last_purchase_day(budget, spent, queues, now)
    )


def _take_affordable(queues: list[_PurchaseQueue], credits: int) -> int:
    """Take out the images that `Submit` would choose for ``credits``, and return what they cost."""
    left = credits
    for priority in sorted({queue.priority for queue in queues}, reverse=True):
        turns = [queue for queue in queues if queue.priority == priority]
        while turns := [queue for queue in turns if queue.images and queue.price <= left]:
            for queue in turns:
                if queue.price <= left:
                    queue.images -= 1
                    left -= queue.price
    return credits - left


def _last_purchase_day(budget: Budget, spent: int, waiting: list[_PurchaseQueue], now: float) -> date | None:
    """Return the day on which the last image is paid, if from tomorrow on the whole budget goes to these.

    ``spent`` is the number of credits of this month up to and including today. Empties ``waiting``.
    """
    day, last = datetime.fromtimestamp(now).astimezone().date(), None
    for _ in range(_MAX_PLAN_DAYS):
        if not any(queue.images for queue in waiting):
            return last
        before, day = day, day + timedelta(days=1)
        last = day
        spent = spent if day.month == before.month else 0
        month = None if budget.per_month is None else budget.per_month - spent
        spent += _take_affordable(waiting, min(limit for limit in (budget.per_day, month) if limit is not None))
    return None


def _plan_rule(request: _PlanRequest) -> RulePlan:
    config, journal, rule = request.config, request.journal, request.rule
    plan = RulePlan(rule.name)
    if rule.inbox in request.unresponsive_paths:
        away: str | None = describe_hang()
    else:
        away = why_unavailable(rule.inbox, AcceptedMount(rule.name, journal.folder_mount(rule.inbox)))
    plan.away = away and f"the inbox {rule.inbox} is away: {away}"
    for job in journal.jobs(states=(*UNFINISHED, State.HELD), rule=rule.name, oldest_first=True):
        if job.state is State.HELD:
            plan.held += 1
        elif job.state is not State.QUEUED:
            plan.under_way += 1
            plan.counted_contents[job.sha256 or ""] = False
        else:
            _count_queued_job(request, plan, job)
    if plan.away is not None:
        return plan
    scanner = Scanner(
        os.fspath(rule.inbox),
        NameFilter(rule.include, rule.exclude),
        recursive=rule.recursive,
        follow_symlinks=rule.follow_symlinks,
        forbidden=map(os.fspath, forbidden_link_targets(config, rule)),
    )
    scanner.load_known(journal.known_files(rule.name))
    found = scanner.scan(full=True)
    if isinstance(found, InboxUnavailable):
        plan.away = found.reason
        return plan
    new = sum(_count_file(request, plan, rule.inbox / file.relative) for file in found)
    plan.unreadable += len(scanner.unreadable_folders)
    plan.flood = _count_flood(request, new)
    return plan


def _count_flood(request: _PlanRequest, new: int) -> int:
    """Return how many images `budget.burst` holds, or would hold if ``new`` images were taken in now."""
    burst, held = request.config.budget.burst, request.journal.flood_counts().get(request.rule.name, 0)
    if burst is None:
        return held
    arrived = request.journal.count_arrivals(request.rule.name, request.now - burst.per, burst.images)
    return held + min(new, max(0, arrived + new - burst.images))


def _count_queued_job(request: _PlanRequest, plan: RulePlan, job: Job) -> None:
    """Count a queued job; it is not paid for if its file is gone or was changed since it was taken in."""
    rule, sha256 = request.rule, job.sha256
    if plan.away is None:
        found = stat_file(job.source, follow_symlinks=rule.follow_symlinks)
        if isinstance(found, Missing):
            plan.rejected += 1
            return
        changed = isinstance(found, os.stat_result) and stamp_of(found) != job.stamp
        if changed or sha256 is None:
            verdict = validate_file(job.source, request.config.api, rule, final=True)
            content = verdict.sha256 if isinstance(verdict, ValidImage | ValidLink) else None
            if content is None or (sha256 is not None and content != sha256):
                # The scan finds the file that came in its place, so it is not counted here as well.
                plan.rejected += sha256 is None
                return
            sha256 = content
    if _is_skipped(request, job):
        plan.skipped += 1
    else:
        _count_image(request, plan, sha256, job)


def _is_skipped(request: _PlanRequest, job: Job) -> bool:
    if request.rule.outbox in request.unresponsive_paths:
        return False
    return isinstance(find_existing_result(request.rule, job, request.now), Path)


def _count_file(request: _PlanRequest, plan: RulePlan, path: Path) -> bool:
    """Count one file of the scan, and return whether it is an image that intake would take in."""
    journal, rule = request.journal, request.rule
    found = stat_file(path, follow_symlinks=rule.follow_symlinks)
    if not isinstance(found, os.stat_result):
        plan.unreadable += isinstance(found, Unreadable)
        return False
    verdict = validate_file(path, request.config.api, rule, final=has_settle_expired(rule, found, request.now))
    match verdict:
        case Missing():
            return False
        case Incomplete() | Changed():
            plan.not_whole += 1
            return False
        case Unreadable():
            plan.unreadable += 1
            return False
    [new] = mark_own_results([build_new_job(rule, path, stamp_of(found), verdict)], journal)
    if is_unchanged(journal.find_latest_job(path), new, request.config.rules):
        return False
    if new.problem is not None:
        plan.rejected += 1
        return False
    if new.result_of is not None:
        plan.copies += 1
        return False
    looks_up_existing = rule.outbox not in request.unresponsive_paths and _is_first_of_content(request, plan, new)
    if looks_up_existing and isinstance(find_existing_result(rule, new, request.now), Path):
        plan.skipped += 1
    else:
        _count_image(request, plan, new.sha256, None)
    return True


def _is_first_of_content(request: _PlanRequest, plan: RulePlan, new: NewJob) -> bool:
    """Return whether the image follows no earlier job, so `if_exists` decides; a copy follows its first before that."""
    if new.sha256 is None or new.sha256 in plan.counted_contents:
        return new.sha256 is None
    return find_first_job(request.journal, new.sha256, request.rule, None, request.unresponsive_paths) is None


def _count_image(request: _PlanRequest, plan: RulePlan, sha256: str | None, job: Job | None) -> None:
    """Count one image, with or without a ``job``, as paid for, as a copy, or as held with its first."""
    if sha256 is not None:
        if sha256 not in plan.counted_contents:
            first = find_first_job(request.journal, sha256, request.rule, job, request.unresponsive_paths)
            plan.counted_contents[sha256] = first is not None and first.state is State.HELD
            if first is None:
                plan.images += 1
                plan.credits += PRICES[request.rule.type]
                return
        if plan.counted_contents[sha256]:
            plan.held += 1
        else:
            plan.copies += 1
        return
    plan.images += 1
    plan.credits += PRICES[request.rule.type]
