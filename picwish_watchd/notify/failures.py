"""Group images that ended badly by state and error code, so that five hundred of them become one message."""

from collections.abc import Iterator, Sequence

from picwish_watchd.config.notifiers import NotificationEvent
from picwish_watchd.job import State
from picwish_watchd.journal.ended_jobs import UnsuccessfulJob
from picwish_watchd.notify.message import Message, sanitize_message
from picwish_watchd.notify.state_file import MAX_LISTED_JOBS, FailureGroup, NotifyState
from picwish_watchd.wording import printable_path

#: Seconds from the first image of a group to its message.
GATHER_DELAY = 60.0
#: Seconds for which the same problem is not reported again.
REPEAT_INTERVAL = 3600.0

# State -> words for one image, words for several, explanation.
_STATE_TEXTS = {
    State.HELD: ("is held", "are held", "Going on could cost credits twice, or a person has to look."),
    State.FAILED: ("failed", "failed", "PicWish could not process it, or it was given up."),
    State.REJECTED: ("is rejected", "are rejected", "The file is at fault; nothing was sent and nothing was paid."),
}
_EVENT_BY_STATE = {
    State.HELD: NotificationEvent.HELD,
    State.FAILED: NotificationEvent.FAILED,
    State.REJECTED: NotificationEvent.REJECTED,
}


def group_failures(state: NotifyState, jobs: Sequence[UnsuccessfulJob], now: float) -> None:
    """Add jobs that ended badly to the groups of ``state``, by job state and error code."""
    for job in jobs:
        key = f"{job.state}/{job.code}"
        group = state.groups.setdefault(key, FailureGroup(since=now, first=job.event, last=job.event))
        group.count += 1
        group.last = job.event
        if len(group.some) < MAX_LISTED_JOBS:
            listed: dict[str, object] = {
                "job": job.job,
                "rule": job.rule,
                "file": printable_path(job.relative),
                "message": sanitize_message(job.message),
            }
            group.some.append(listed)
        state.event = max(state.event, job.event)


def pop_due_messages(state: NotifyState, now: float, *, at_once: bool = False) -> Iterator[Message]:
    """Yield one message for each job state whose groups are due, and take these groups out of ``state``.

    ``at_once``: do not wait until a group is 60 s old.
    """
    for job_state in _STATE_TEXTS:
        due = {
            key: group
            for key, group in state.groups.items()
            if key.startswith(f"{job_state}/") and now - state.told.get(key, -REPEAT_INTERVAL) >= REPEAT_INTERVAL
        }
        if not any(at_once or not 0 <= now - group.since < GATHER_DELAY for group in due.values()):
            continue
        for key in due:
            del state.groups[key]
            state.told[key] = now
        yield _build_failure_message(job_state, {key.partition("/")[2]: group for key, group in due.items()}, now)


def _build_failure_message(job_state: State, groups: dict[str, FailureGroup], now: float) -> Message:
    one_text, many_text, explanation = _STATE_TEXTS[job_state]
    count = sum(group.count for group in groups.values())
    listed = [dict(each, code=code) for code, group in groups.items() for each in group.some]
    first = listed[0]
    subject = f"{first['file']} {one_text}" if count == 1 else f"{count:,} images {many_text}"
    lines = [f"{subject}. {explanation}"]
    for code, group in groups.items():
        lines += ["", (code or "fixed meanwhile") + ("" if group.count == 1 else f", {group.count:,} times") + ":"]
        lines += [
            f"- {each['file']} (job {each['job']}, rule {each['rule']}): {each['message']}" for each in group.some
        ]
        if group.count > len(group.some):
            lines.append(f"- and {group.count - len(group.some):,} more")
    lines += ["", *_list_next_steps(job_state, str(first["job"]), alone=count == 1)]
    codes = {code: group.count for code, group in groups.items()}
    span = f"{min(group.first for group in groups.values())}-{max(group.last for group in groups.values())}"
    facts = {"count": count, "codes": codes, "jobs": listed}
    return Message(f"{job_state}-{span}", _EVENT_BY_STATE[job_state], now, subject, "\n".join(lines), facts)


def _list_next_steps(job_state: State, job: str, *, alone: bool) -> list[str]:
    """Return sentences on what a person can do. ``alone``: the message is about this job only."""
    steps = [f"`picwish-watchd show {job}` shows the details{'' if alone else ' of the first one'}."]
    if not alone:
        steps.append(f"`picwish-watchd jobs --state {job_state}` lists them.")
    retry = f"`picwish-watchd retry {job if alone else f'--state {job_state}'}`"
    match job_state:
        case State.HELD:
            steps.append(f"{retry} continues {'it' if alone else 'all of them'} and says what that may cost.")
        case State.FAILED:
            steps.append(f"{retry} submits {'it' if alone else 'them'} again, once the cause is fixed.")
        case _:
            steps.append("A file that is repaired, or copied again, is checked again automatically.")
    return steps
