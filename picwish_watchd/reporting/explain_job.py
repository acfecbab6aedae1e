"""Explain a job in words: its state, what it waits for, and what a person can do."""

import os
from contextlib import suppress
from pathlib import Path

from picwish_watchd.job import ErrorCode, Job, State
from picwish_watchd.outbox.spool import Spool, spool_folder
from picwish_watchd.pipeline.duplicates import find_first_job
from picwish_watchd.pipeline.retry import RetryAction, retry_plan
from picwish_watchd.pricing import PRICES
from picwish_watchd.reporting.snapshot import Blocker, Snapshot
from picwish_watchd.wording import iso_utc, printable_path

_START_ADVICE = "start `picwish-watchd run`"
_STATUS_ADVICE = "see `picwish-watchd status`"


def explain_job(snapshot: Snapshot, job: Job) -> tuple[str, str | None]:
    """Return what state the job is in and why, and the advice, or None where there is nothing to do."""
    match job.state:
        case State.DONE:
            return _explain_done(snapshot, job), None
        case State.REJECTED | State.FAILED | State.HELD:
            reason = job.problem.message if job.problem else "see its history"
            return f"it is {job.state}: {reason}", _render_retry_advice(snapshot, job)
        case State.QUEUED:
            blockers = _find_blockers(snapshot, job)
            if not blockers:
                return "it is queued and waits for its turn", None
            advice = next((blocker.advice for blocker in blockers if blocker.advice), None)
            return "it is queued, and waits: " + "; ".join(blocker.reason for blocker in blockers), advice
        case State.DELIVERING:
            return _explain_delivering(snapshot, job)
    if job.state is State.SUBMITTING and snapshot.pid is None:
        reason = "it was being sent when the daemon ended, and PicWish may have accepted it"
        return reason, f"{_START_ADVICE}: the job is then held or sent again, as `charging` says"
    reason = f"it is {job.state} at PicWish since {iso_utc(job.submitted_at)}{_render_note(snapshot, job)}"
    if snapshot.pid is None:
        return f"{reason}; the daemon does not run", f"{_START_ADVICE}: PicWish keeps a result for one hour"
    if snapshot.gate_message is not None:
        return f"{reason}; {snapshot.gate_message}", _STATUS_ADVICE
    return reason, None


def _explain_delivering(snapshot: Snapshot, job: Job) -> tuple[str, str | None]:
    reason, rule = "its result is paid and kept, and goes to the outbox", snapshot.find_rule(job.rule)
    problem = job.note or (snapshot.why_outbox_unusable(rule) if rule is not None else None)
    if problem is not None:
        reason += f": {problem}{_render_retry_time(snapshot, job)}"
    if snapshot.pid is None:
        return f"{reason}; the daemon does not run", _START_ADVICE
    return reason, None if problem is None else "correct that; it continues automatically"


def _explain_done(snapshot: Snapshot, job: Job) -> str:
    if job.output is None:
        return "it is done: no result" + (f" ({job.note})" if job.note else "")
    gone = ", which is not there any more" if _is_missing(snapshot, job.output) else ""
    return f"it is done: {printable_path(job.output)}{gone}" + (f" ({job.note})" if job.note else "")


def _is_missing(snapshot: Snapshot, path: Path) -> bool:
    return snapshot.is_responsive(path) and not os.path.lexists(path)


def _render_note(snapshot: Snapshot, job: Job) -> str:
    return (f" ({job.note})" if job.note else "") + _render_retry_time(snapshot, job)


def _render_retry_time(snapshot: Snapshot, job: Job) -> str:
    return f"; tried again at {iso_utc(job.not_before)}" if (job.not_before or 0) > snapshot.now else ""


def _find_blockers(snapshot: Snapshot, job: Job) -> list[Blocker]:
    """Return everything that a queued job waits for; first what a person can change."""
    rule = snapshot.find_rule(job.rule)
    if rule is None:
        return [Blocker(f"its rule {job.rule} left the configuration", "put the rule back")]
    blockers = []
    if snapshot.journal.is_flood(job.id):
        price = PRICES[rule.type]
        approve = f"`picwish-watchd approve {job.rule}` lets all of them go; this one costs {price} credits"
        blockers.append(Blocker("it came in a flood that budget.burst holds", approve))
    if snapshot.pid is None:
        blockers.append(Blocker("the daemon does not run", _START_ADVICE))
    submit_blocker = snapshot.find_submit_blocker(rule, job.id)
    if submit_blocker is not None:
        blockers.append(submit_blocker)
    first = find_first_job(snapshot.journal, job.sha256, rule, job, snapshot.unresponsive_paths)
    if first is not None:
        blockers.append(Blocker(f"it is a copy: it gets the result of job {first.id}, which is {first.state}"))
    if (job.not_before or 0) > snapshot.now:
        why = f"{job.note}; " if job.note and submit_blocker is None else ""
        blockers.append(Blocker(f"{why}tried again at {iso_utc(job.not_before)}"))
    return blockers


def _render_retry_advice(snapshot: Snapshot, job: Job) -> str:
    """Return what `retry` would do with a job that ended badly, and what that may cost."""
    retry, show = f"`picwish-watchd retry {job.id}`", f"`picwish-watchd show {job.id}` shows its history"
    rule = snapshot.find_rule(job.rule)
    price = PRICES[rule.type if rule is not None else job.type]
    if job.problem is not None and job.problem.code is ErrorCode.DUPLICATE_OF_HELD:
        first = None
        if rule is not None:
            first = find_first_job(snapshot.journal, job.sha256, rule, job, snapshot.unresponsive_paths)
        if first is not None and first.state is State.HELD:
            why = f"`picwish-watchd why {printable_path(first.source)}`"
            return f"retry its first, job {first.id}: {why} shows how; {show}"
    action = None
    # The spool is the daemon's, and may be closed to the user of this command.
    with suppress(OSError):
        action = retry_plan(job, Spool(spool_folder(snapshot.config.journal)))
    missing = "put the file back first; " if _is_missing(snapshot, job.source) else ""
    match action:
        case RetryAction.DELIVER:
            return f"{retry} delivers what was paid for, at no cost; {show}"
        case RetryAction.QUERY:
            return (
                f"{retry} asks PicWish for the old task first, and costs {price} credits again only if that is gone; "
                f"{show}"
            )
        case RetryAction.REVALIDATE:
            validates = f"{retry} validates it as it is, and costs {price} credits if it is valid now"
            return f"{missing}a file that is repaired is validated again automatically; {validates}; {show}"
        case _:
            again = " again" if job.state is State.HELD else ""
            return f"{missing}{retry} submits it again, and costs {price} credits{again}; {show}"
