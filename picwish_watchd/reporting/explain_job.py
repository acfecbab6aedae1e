"""How a job stands, in words: where it is, what it waits for, and what a person can do."""

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


def explain_job(scene: Snapshot, job: Job) -> tuple[str, str | None]:
    """What the job is, and why; and the advice, None where there is nothing to do."""
    match job.state:
        case State.DONE:
            return _explain_done(scene, job), None
        case State.REJECTED | State.FAILED | State.HELD:
            told = job.problem.message if job.problem else "see its history"
            return f"it is {job.state}: {told}", _render_retry_advice(scene, job)
        case State.QUEUED:
            stops = _find_blockers(scene, job)
            if not stops:
                return "it is queued and waits for its turn", None
            advice = next((stop.advice for stop in stops if stop.advice), None)
            return "it is queued, and waits: " + "; ".join(stop.reason for stop in stops), advice
        case State.DELIVERING:
            return _explain_delivering(scene, job)
    if job.state is State.SUBMITTING and scene.pid is None:
        reason = "it was being sent when the daemon ended, and PicWish may have taken it"
        return reason, f"{_START_ADVICE}: it is held then, or sent again, as `charging` says"
    reason = f"it is {job.state} at PicWish since {iso_utc(job.submitted_at)}{_render_note(scene, job)}"
    if scene.pid is None:
        return f"{reason}; the daemon does not run", f"{_START_ADVICE}: PicWish keeps a result for one hour"
    if scene.gate_message is not None:
        return f"{reason}; {scene.gate_message}", _STATUS_ADVICE
    return reason, None


def _explain_delivering(scene: Snapshot, job: Job) -> tuple[str, str | None]:
    reason, rule = "its result is paid and kept, and goes to the outbox", scene.find_rule(job.rule)
    trouble = job.note or (scene.why_outbox_unusable(rule) if rule is not None else None)
    if trouble is not None:
        reason += f": {trouble}{_render_retry_time(scene, job)}"
    if scene.pid is None:
        return f"{reason}; the daemon does not run", _START_ADVICE
    return reason, None if trouble is None else "mend that; it goes on by itself"


def _explain_done(scene: Snapshot, job: Job) -> str:
    if job.output is None:
        return "it is done: no result" + (f" ({job.note})" if job.note else "")
    gone = ", which does not stand there any more" if _is_missing(scene, job.output) else ""
    return f"it is done: {printable_path(job.output)}{gone}" + (f" ({job.note})" if job.note else "")


def _is_missing(scene: Snapshot, path: Path) -> bool:
    return scene.is_responsive(path) and not os.path.lexists(path)


def _render_note(scene: Snapshot, job: Job) -> str:
    return (f" ({job.note})" if job.note else "") + _render_retry_time(scene, job)


def _render_retry_time(scene: Snapshot, job: Job) -> str:
    return f"; tried again at {iso_utc(job.not_before)}" if (job.not_before or 0) > scene.now else ""


def _find_blockers(scene: Snapshot, job: Job) -> list[Blocker]:
    """All that a queued job waits for, what a person can change first."""
    rule = scene.find_rule(job.rule)
    if rule is None:
        return [Blocker(f"its rule {job.rule} left the configuration", "put the rule back")]
    stops = []
    if scene.journal.is_flood(job.id):
        price = PRICES[rule.type]
        approve = f"`picwish-watchd approve {job.rule}` lets all of it go; this one costs {price} credits"
        stops.append(Blocker("it came in a flood that budget.burst holds", approve))
    if scene.pid is None:
        stops.append(Blocker("the daemon does not run", _START_ADVICE))
    shut = scene.find_submit_blocker(rule, job.id)
    if shut is not None:
        stops.append(shut)
    first = find_first_job(scene.journal, job.sha256, rule, job, scene.unresponsive_paths)
    if first is not None:
        stops.append(Blocker(f"it is a copy: it gets the result of job {first.id}, which is {first.state}"))
    if (job.not_before or 0) > scene.now:
        why = f"{job.note}; " if job.note and shut is None else ""
        stops.append(Blocker(f"{why}tried again at {iso_utc(job.not_before)}"))
    return stops


def _render_retry_advice(scene: Snapshot, job: Job) -> str:
    """What `retry` would do with a job that ended badly, and what that may cost."""
    retry, show = f"`picwish-watchd retry {job.id}`", f"`picwish-watchd show {job.id}` tells its history"
    rule = scene.find_rule(job.rule)
    price = PRICES[rule.type if rule is not None else job.type]
    if job.problem is not None and job.problem.code is ErrorCode.DUPLICATE_OF_HELD:
        first = None
        if rule is not None:
            first = find_first_job(scene.journal, job.sha256, rule, job, scene.unresponsive_paths)
        if first is not None and first.state is State.HELD:
            why = f"`picwish-watchd why {printable_path(first.source)}`"
            return f"retry its first, job {first.id}: {why} tells how; {show}"
    way = None
    # the spool is the daemon's, and may be shut to who asks
    with suppress(OSError):
        way = retry_plan(job, Spool(spool_folder(scene.config.journal)))
    missing = "put the file back first; " if _is_missing(scene, job.source) else ""
    match way:
        case RetryAction.DELIVER:
            return f"{retry} delivers what was paid for, at no cost; {show}"
        case RetryAction.QUERY:
            return (
                f"{retry} asks PicWish for the old task first, and costs {price} credits again only if that is gone; "
                f"{show}"
            )
        case RetryAction.REVALIDATE:
            looked = f"{retry} looks at it as it is, and costs {price} credits if it is well by now"
            return f"{missing}a file that is mended is looked at again by itself; {looked}; {show}"
        case _:
            again = " again" if job.state is State.HELD else ""
            return f"{missing}{retry} submits it anew, and costs {price} credits{again}; {show}"
