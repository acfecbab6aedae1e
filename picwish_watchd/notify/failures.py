"""Images that ended badly: gathered by kind and reason, so that five hundred are one message."""

from collections.abc import Iterator, Sequence

from picwish_watchd.config.notifiers import NotificationEvent
from picwish_watchd.job import State
from picwish_watchd.journal.ended_jobs import UnsuccessfulJob
from picwish_watchd.notify.message import Message, sanitize_message
from picwish_watchd.notify.state_file import MAX_LISTED_JOBS, FailureGroup, NotifyState
from picwish_watchd.wording import printable_path

#: seconds from the first image to the message
GATHER_DELAY = 60.0
#: seconds in which the same trouble is not told again
REPEAT_INTERVAL = 3600.0

_STATE_TEXTS = {
    State.HELD: ("is held", "are held", "Going on could cost credits twice, or a person has to look."),
    State.FAILED: ("failed", "failed", "PicWish could not do it, or it was given up."),
    State.REJECTED: ("is refused", "are refused", "The file is at fault; nothing was sent and nothing was paid."),
}
_EVENT_BY_STATE = {
    State.HELD: NotificationEvent.HELD,
    State.FAILED: NotificationEvent.FAILED,
    State.REJECTED: NotificationEvent.REJECTED,
}


def group_failures(memory: NotifyState, found: Sequence[UnsuccessfulJob], now: float) -> None:
    """Puts them to their like."""
    for each in found:
        key = f"{each.state}/{each.code}"
        group = memory.groups.setdefault(key, FailureGroup(since=now, first=each.event, last=each.event))
        group.count += 1
        group.last = each.event
        if len(group.some) < MAX_LISTED_JOBS:
            told = {
                "job": each.job,
                "rule": each.rule,
                "file": printable_path(each.relative),
                "message": sanitize_message(each.message),
            }
            group.some.append(told)
        memory.event = max(memory.event, each.event)


def pop_due_messages(memory: NotifyState, now: float, *, at_once: bool = False) -> Iterator[Message]:
    """What is to be told now, and is then taken for told; ``at_once``: do not wait for more of it."""
    for state in _STATE_TEXTS:
        ripe = {
            key: group
            for key, group in memory.groups.items()
            if key.startswith(f"{state}/") and now - memory.told.get(key, -REPEAT_INTERVAL) >= REPEAT_INTERVAL
        }
        if not any(at_once or not 0 <= now - group.since < GATHER_DELAY for group in ripe.values()):
            continue
        for key in ripe:
            del memory.groups[key]
            memory.told[key] = now
        yield _build_failure_message(state, {key.partition("/")[2]: group for key, group in ripe.items()}, now)


def _build_failure_message(state: State, groups: dict[str, FailureGroup], now: float) -> Message:
    one_does, many_do, why = _STATE_TEXTS[state]
    number = sum(group.count for group in groups.values())
    some = [dict(each, code=code) for code, group in groups.items() for each in group.some]
    first = some[0]
    subject = f"{first['file']} {one_does}" if number == 1 else f"{number:,} images {many_do}"
    lines = [f"{subject}. {why}"]
    for code, group in groups.items():
        lines += ["", (code or "mended by now") + ("" if group.count == 1 else f", {group.count:,} times") + ":"]
        lines += [
            f"- {each['file']} (job {each['job']}, rule {each['rule']}): {each['message']}" for each in group.some
        ]
        if group.count > len(group.some):
            lines.append(f"- and {group.count - len(group.some):,} more")
    lines += ["", *_list_next_steps(state, str(first["job"]), alone=number == 1)]
    codes = {code: group.count for code, group in groups.items()}
    span = f"{min(group.first for group in groups.values())}-{max(group.last for group in groups.values())}"
    facts = {"count": number, "codes": codes, "jobs": some}
    return Message(f"{state}-{span}", _EVENT_BY_STATE[state], now, subject, "\n".join(lines), facts)


def _list_next_steps(state: State, job: str, *, alone: bool) -> list[str]:
    """What a person can do."""
    ways = [f"`picwish-watchd show {job}` tells all about {'it' if alone else 'the first of them'}."]
    if not alone:
        ways.append(f"`picwish-watchd jobs --state {state}` lists them.")
    retry = f"`picwish-watchd retry {job if alone else f'--state {state}'}`"
    match state:
        case State.HELD:
            ways.append(f"{retry} lets {'it' if alone else 'all of them'} go on, and says what that may cost.")
        case State.FAILED:
            ways.append(f"{retry} submits {'it' if alone else 'them'} anew, once the reason is mended.")
        case _:
            ways.append("A file that is mended, or copied again, is looked at again by itself.")
    return ways
