"""What the inboxes hold that is not done, and what it would cost. Nothing is submitted or written down."""

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

# days: nobody plans further
_MAX_PLAN_DAYS = 3660


@dataclass(slots=True)
class RulePlan:
    """What lies ahead of one rule, in numbers of files; queued jobs count."""

    rule: str
    #: to be paid for
    images: int = 0
    #: delivered from a result that is, or will be, there; and results of ours that came back
    copies: int = 0
    #: would be refused as they stand
    rejected: int = 0
    #: what the images cost
    credits: int = 0
    #: still being written: not judged yet
    not_whole: int = 0
    #: files and subfolders that cannot be read
    unreadable: int = 0
    #: jobs that wait for a person, and new copies of them
    held: int = 0
    #: a result of their name is there already (`if_exists: skip`): they cost nothing
    skipped: int = 0
    #: of the images and copies: those that `budget.burst` would hold until `approve`
    flood: int = 0
    #: submitted already: nothing more is paid for them
    under_way: int = 0
    #: why the inbox could not be looked at
    away: str | None = None
    #: SHA-256 of what was counted; whether it is held
    counted_contents: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BudgetPlan:
    """What the budget lets happen to a plan. None where there is no limit."""

    #: credits
    left_today: int | None
    #: credits
    left_this_month: int | None
    #: images that are not bought today for want of budget
    waiting: int = 0
    #: the day on which the last of them is bought, at the earliest; None: today, or never
    until: date | None = None


@dataclass(slots=True)
class _PurchaseQueue:
    """Images of one rule that are to be bought."""

    priority: int
    #: credits, of each
    price: int
    images: int


@dataclass(frozen=True, slots=True)
class _PlanRequest:
    """What is asked, of one rule."""

    config: Config
    journal: JournalReader
    rule: Rule
    now: float
    #: folders that do not answer
    unresponsive_paths: frozenset[Path]


def build_plan(config: Config, journal: JournalReader, now: float) -> list[RulePlan]:
    """One for each rule of the configuration. ``now`` is Unix seconds.

    Files whose stamp the journal knows are not read.
    """
    hanging = find_unresponsive_paths(folder for rule in config.rules for folder in rule.folders().values())
    return [_plan_rule(_PlanRequest(config, journal, rule, now, hanging)) for rule in config.rules]


def plan_budget(config: Config, journal: JournalReader, rules: Sequence[RulePlan], now: float) -> BudgetPlan:
    """What of the plan can be bought today, and when the rest: of the highest priority first, of equal ones in turn."""
    budget = config.budget
    today, month = CreditBudget(budget, now).remaining(journal)
    limits = [each for each in (today, month) if each is not None]
    if not limits:
        return BudgetPlan(None, None)
    ranks = {rule.name: (rule.priority, PRICES[rule.type]) for rule in config.rules}
    queues = [_PurchaseQueue(*ranks[ahead.rule], ahead.images) for ahead in rules]
    bought = _take_affordable(queues, min(limits))
    spent = bought if month is None or budget.per_month is None else budget.per_month - month + bought
    return BudgetPlan(
        today, month, sum(queue.images for queue in queues), _last_purchase_day(budget, spent, queues, now)
    )


def _take_affordable(queues: list[_PurchaseQueue], most: int) -> int:
    """Takes out what ``most`` credits buy, as `Submit` would choose; answers what it costs."""
    left = most
    for priority in sorted({queue.priority for queue in queues}, reverse=True):
        turns = [queue for queue in queues if queue.priority == priority]
        while turns := [queue for queue in turns if queue.images and queue.price <= left]:
            for queue in turns:
                if queue.price <= left:
                    queue.images -= 1
                    left -= queue.price
    return most - left


def _last_purchase_day(budget: Budget, spent: int, waiting: list[_PurchaseQueue], now: float) -> date | None:
    """The day on which the last of these is paid, if from tomorrow on the whole budget goes to them.

    ``spent`` are the credits of this month up to and with today. What waits is used up.
    """
    day, last = datetime.fromtimestamp(now).astimezone().date(), None
    for _ in range(_MAX_PLAN_DAYS):
        if not any(queue.images for queue in waiting):
            return last
        before, day = day, day + timedelta(days=1)
        last = day
        spent = spent if day.month == before.month else 0
        month = None if budget.per_month is None else budget.per_month - spent
        spent += _take_affordable(waiting, min(each for each in (budget.per_day, month) if each is not None))
    return None


def _plan_rule(ask: _PlanRequest) -> RulePlan:
    config, journal, rule = ask.config, ask.journal, ask.rule
    ahead = RulePlan(rule.name)
    if rule.inbox in ask.unresponsive_paths:
        away: str | None = describe_hang()
    else:
        away = why_unavailable(rule.inbox, AcceptedMount(rule.name, journal.folder_mount(rule.inbox)))
    ahead.away = away and f"the inbox {rule.inbox} is away: {away}"
    for job in journal.jobs(states=(*UNFINISHED, State.HELD), rule=rule.name, oldest_first=True):
        if job.state is State.HELD:
            ahead.held += 1
        elif job.state is not State.QUEUED:
            ahead.under_way += 1
            ahead.counted_contents[job.sha256 or ""] = False
        else:
            _count_queued_job(ask, ahead, job)
    if ahead.away is not None:
        return ahead
    walker = Scanner(
        os.fspath(rule.inbox),
        NameFilter(rule.include, rule.exclude),
        recursive=rule.recursive,
        follow_symlinks=rule.follow_symlinks,
        forbidden=map(os.fspath, forbidden_link_targets(config, rule)),
    )
    walker.load_known(journal.known_files(rule.name))
    found = walker.scan(full=True)
    if isinstance(found, InboxUnavailable):
        ahead.away = found.reason
        return ahead
    new = sum(_count_file(ask, ahead, rule.inbox / sighting.relative) for sighting in found)
    ahead.unreadable += len(walker.unreadable_folders)
    ahead.flood = _count_flood(ask, new)
    return ahead


def _count_flood(ask: _PlanRequest, new: int) -> int:
    """How many images `budget.burst` holds, or would hold if ``new`` ones were taken in now."""
    burst, held = ask.config.budget.burst, ask.journal.flood_counts().get(ask.rule.name, 0)
    if burst is None:
        return held
    arrived = ask.journal.count_arrivals(ask.rule.name, ask.now - burst.per, burst.images)
    return held + min(new, max(0, arrived + new - burst.images))


def _count_queued_job(ask: _PlanRequest, ahead: RulePlan, job: Job) -> None:
    """A queued job: to be paid for unless its file is not any more what it was when it was taken in."""
    rule, sha256 = ask.rule, job.sha256
    if ahead.away is None:
        found = stat_file(job.source, follow_symlinks=rule.follow_symlinks)
        if isinstance(found, Missing):
            ahead.rejected += 1
            return
        changed = isinstance(found, os.stat_result) and stamp_of(found) != job.stamp
        if changed or sha256 is None:
            verdict = validate_file(job.source, ask.config.api, rule, final=True)
            judged = getattr(verdict, "sha256", None)
            if judged is None or (sha256 is not None and judged != sha256):
                # what came in its place is met by the walk; it is not paid for twice
                ahead.rejected += sha256 is None
                return
            sha256 = judged
    if _is_skipped(ask, job):
        ahead.skipped += 1
    else:
        _count_image(ask, ahead, sha256, job)


def _is_skipped(ask: _PlanRequest, job: Job) -> bool:
    if ask.rule.outbox in ask.unresponsive_paths:
        return False
    return isinstance(find_existing_result(ask.rule, job, ask.now), Path)


def _count_file(ask: _PlanRequest, ahead: RulePlan, path: Path) -> bool:
    """Counts one file of the walk; whether it is an image that intake would let in."""
    journal, rule = ask.journal, ask.rule
    found = stat_file(path, follow_symlinks=rule.follow_symlinks)
    if not isinstance(found, os.stat_result):
        ahead.unreadable += isinstance(found, Unreadable)
        return False
    verdict = validate_file(path, ask.config.api, rule, final=has_settle_expired(rule, found, ask.now))
    match verdict:
        case Missing():
            return False
        case Incomplete() | Changed():
            ahead.not_whole += 1
            return False
        case Unreadable():
            ahead.unreadable += 1
            return False
    [new] = mark_own_results([build_new_job(rule, path, stamp_of(found), verdict)], journal)
    if is_unchanged(journal.find_latest_job(path), new, ask.config.rules):
        return False
    if new.problem is not None:
        ahead.rejected += 1
        return False
    if new.result_of is not None:
        ahead.copies += 1
        return False
    looks = rule.outbox not in ask.unresponsive_paths and _is_first_of_content(ask, ahead, new)
    if looks and isinstance(find_existing_result(rule, new, ask.now), Path):
        ahead.skipped += 1
    else:
        _count_image(ask, ahead, new.sha256, None)
    return True


def _is_first_of_content(ask: _PlanRequest, ahead: RulePlan, new: NewJob) -> bool:
    """Whether no earlier job of this content is asked before `if_exists`."""
    if new.sha256 is None or new.sha256 in ahead.counted_contents:
        return new.sha256 is None
    return find_first_job(ask.journal, new.sha256, ask.rule, None, ask.unresponsive_paths) is None


def _count_image(ask: _PlanRequest, ahead: RulePlan, sha256: str | None, job: Job | None) -> None:
    """One image, of a queued job or not yet one: paid for, a copy, or held with its first."""
    if sha256 is not None:
        if sha256 not in ahead.counted_contents:
            first = find_first_job(ask.journal, sha256, ask.rule, job, ask.unresponsive_paths)
            ahead.counted_contents[sha256] = first is not None and first.state is State.HELD
            if first is None:
                ahead.images += 1
                ahead.credits += PRICES[ask.rule.type]
                return
        if ahead.counted_contents[sha256]:
            ahead.held += 1
        else:
            ahead.copies += 1
        return
    ahead.images += 1
    ahead.credits += PRICES[ask.rule.type]
