"""What a whole answer means: pure functions from a reply to an outcome.

Of the HTTP code and the body's ``status`` the worse is believed. What "worse" is depends on what is at stake: for a
create doubt about money is the worst, for a query nothing is believed lightly that would end the job.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from enum import IntEnum

from picwish_watchd.job import ErrorCode, Problem
from picwish_watchd.picwish.outcomes import (
    Accepted,
    Busy,
    CreateOutcome,
    Finished,
    Healthy,
    InDoubt,
    NotAccepted,
    NotStored,
    ProbeOutcome,
    Processing,
    QueryOutcome,
    Refused,
    Succeeded,
    TaskFailed,
    TaskUnknown,
    Unauthorized,
    Unavailable,
)
from picwish_watchd.picwish.sanitize import plain
from picwish_watchd.picwish.streaming_json import Envelope
from picwish_watchd.picwish.task_info import Answer, read_answer
from picwish_watchd.picwish.task_states import Fate, meaning_of

LONGEST_PAUSE = 3600.0  #: seconds; no Retry-After is obeyed for longer

_UNKNOWN = 0  # stands for a `status` that is no HTTP code


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one request, as far as it came."""

    code: int  #: HTTP
    retry_after: float | None = None  #: seconds
    envelope: Envelope | None = None  #: None: `unreadable` says why
    unreadable: str = ""
    task_id: str | None = None  #: known even where the answer broke off behind it
    spooled: int | None = None  #: bytes of a whole base64 picture in the sink
    flaw: str | None = None  #: what is wrong with the picture
    not_stored: str | None = None  #: why this machine could not keep the picture
    secret: str = field(default="", repr=False)  #: the key, to be taken out of texts


class _Create(IntEnum):
    """Answers to a create, the later the worse."""

    TAKEN = 0
    LATER = 1
    REFUSED = 2
    UNAUTHORIZED = 3
    DOUBTFUL = 4


#: 4xx that speak of the request's way or time and not of the picture; nothing was taken.
_LATER = frozenset({404, 405, 407, 408, 410, 421, 425, 429, 503})
_NO_ENTRY = frozenset({401, 402, 403})


def _create_verdict(code: int) -> _Create:
    if 200 <= code < 300:
        return _Create.TAKEN
    if code in _NO_ENTRY:
        return _Create.UNAUTHORIZED
    if code in _LATER or 300 <= code < 400:
        return _Create.LATER
    return _Create.REFUSED if 400 <= code < 500 else _Create.DOUBTFUL


def create_outcome(reply: Reply, *, size: int = 0) -> CreateOutcome:
    """The outcome of a POST that was answered.

    Args:
        reply: what came.
        size: bytes of the picture, for the message about one that is too large.
    """
    code = _worst(reply, _create_verdict)
    verdict = _create_verdict(code)
    if verdict not in (_Create.TAKEN, _Create.DOUBTFUL) and (answer := _answer(reply)).task_id is not None:
        return Accepted(answer.task_id, answer)  # whatever else it says: the task exists, and is not submitted again
    if verdict in (_Create.TAKEN, _Create.DOUBTFUL):
        return _taken(reply, sure=verdict is _Create.TAKEN)
    if verdict is _Create.UNAUTHORIZED:
        return _unauthorized(reply)
    if verdict is _Create.LATER:
        return NotAccepted(_later(code, reply), reply.retry_after, busy=code == 429)
    return Refused(_refusal(code, reply, size))


def _taken(reply: Reply, *, sure: bool) -> CreateOutcome:
    """A create that was, or (not ``sure``) may have been taken; a task_id ends all doubt, for it can be asked about."""
    answer = _answer(reply)
    fate = None if answer.state is None else meaning_of(answer.state).fate
    if sure and answer.state is not None and fate in (Fate.FAILED, Fate.HOPELESS):
        return _failed(answer, answer.state)
    image = _address(reply)
    whole = image is not None or reply.spooled is not None
    done = fate is Fate.SUCCEEDED or (fate is None and answer.task_id is None)
    if sure and whole and done:
        return Finished(answer.task_id, answer, image, reply.spooled)
    if answer.task_id is not None:
        return Accepted(answer.task_id, answer)
    missing = "and gave no task_id" if reply.envelope is not None else f"and {reply.unreadable}"
    missing += f"; {reply.not_stored}" if reply.not_stored else ""
    return InDoubt(f"PicWish answered {_said(reply)} {missing}")


def _later(code: int, reply: Reply) -> str:
    if 300 <= code < 400:
        return f"PicWish redirects ({_said(reply)}), which is never followed with a key; check api.base_url"
    if code in (404, 405, 410, 421):
        return f"there is no such service at this address ({_said(reply)}); check api.base_url"
    if code == 429:
        return f"PicWish takes no more requests for the moment ({_said(reply)})"
    return f"PicWish did not take the request ({_said(reply)})"


def _refusal(code: int, reply: Reply, size: int) -> Problem:
    if code == 413:
        found = f" The file has {size / 1e6:.1f} MB." if size else ""
        message = (
            f"PicWish finds the picture too large ({_said(reply)}).{found} "
            "Its limits are 30 MB and 4096 x 4096 pixels; make it smaller."
        )
        return Problem(ErrorCode.PAYLOAD_TOO_LARGE, message)
    message = f"PicWish refused the request for this picture ({_said(reply)}). Correct that and use `retry`."
    return Problem(ErrorCode.BAD_REQUEST, message)


class _Query(IntEnum):
    """Answers to a query, in the order in which they are believed."""

    ANSWERED = 0
    UNKNOWN_TASK = 1
    UNAVAILABLE = 2
    BUSY = 3
    UNAUTHORIZED = 4


def _query_verdict(code: int) -> _Query:
    if 200 <= code < 300:
        return _Query.ANSWERED
    if code in (404, 410):
        return _Query.UNKNOWN_TASK
    if code == 429:
        return _Query.BUSY
    return _Query.UNAUTHORIZED if code in _NO_ENTRY else _Query.UNAVAILABLE


def query_outcome(reply: Reply, task_id: str) -> QueryOutcome:
    """The outcome of a GET of ``task_id`` that was answered."""
    match _query_verdict(_worst(reply, _query_verdict)):
        case _Query.UNKNOWN_TASK:
            return TaskUnknown(f"PicWish does not know the task {plain(task_id)} ({_said(reply)})")
        case _Query.BUSY:
            return Busy(reply.retry_after)
        case _Query.UNAUTHORIZED:
            return _unauthorized(reply)
        case _Query.UNAVAILABLE:
            return Unavailable(f"PicWish answered {_said(reply)}", reply.retry_after)
        case _Query.ANSWERED:
            return _queried(reply, task_id)


def _queried(reply: Reply, task_id: str) -> QueryOutcome:
    answer = _answer(reply)
    if reply.envelope is None:
        return Unavailable(f"PicWish answered {_said(reply)} and {reply.unreadable}", reply.retry_after)
    if answer.task_id is not None and answer.task_id != task_id.strip():
        return Unavailable("PicWish answered about another task than the one that was asked for")
    if answer.state is None:
        return Unavailable(f"PicWish answered {_said(reply)} without the task's state", reply.retry_after)
    match meaning_of(answer.state).fate:
        case Fate.UNDER_WAY:
            return Processing(answer)
        case Fate.SUCCEEDED:
            return _succeeded(reply, answer)
        case Fate.FAILED | Fate.HOPELESS:
            return _failed(replace(answer, task_id=task_id), answer.state)


def _succeeded(reply: Reply, answer: Answer) -> QueryOutcome:
    if reply.not_stored is not None:
        return NotStored(reply.not_stored)
    image = _address(reply)
    if image is not None or reply.spooled is not None:
        return Succeeded(answer, image, reply.spooled)
    return Succeeded(answer, None, None, reply.flaw or "PicWish's answer has no usable picture in data.image")


def probe_outcome(reply: Reply) -> ProbeOutcome:
    """The outcome of a GET of a task that cannot exist: 404, like 400, comes only from an API that is well."""
    code = _worst(reply, _query_verdict)
    match _query_verdict(code):
        case _Query.UNAUTHORIZED:
            return _unauthorized(reply)
        case _Query.BUSY:
            return Busy(reply.retry_after)
        case _Query.UNKNOWN_TASK:
            return Healthy()
        case _Query.ANSWERED if reply.envelope is not None:
            return Healthy()
        case _ if code in (400, 422):
            return Healthy()
        case _:
            return Unavailable(f"PicWish answered {_said(reply)}", reply.retry_after)


def create_code(reply: Reply) -> str:
    """The code that decided about a create, for statistics: HTTP's or that of the body's ``status``."""
    return spelled(_worst(reply, _create_verdict))


def query_code(reply: Reply) -> str:
    """The code that decided about a query or a probe, for statistics."""
    return spelled(_worst(reply, _query_verdict))


def spelled(code: int) -> str:
    """A code in a word of its own; whatever is none (RFC 9110, 15) shares one."""
    return str(code) if 100 <= code <= 599 else "other"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """``Retry-After`` in seconds (RFC 9110, 10.2.3), from 0 to `LONGEST_PAUSE`; None where there is no readable one.

    A moment is compared with the ``Date`` of the same answer, so that the clock of this machine does not matter.
    """
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value) if value.isdecimal() else (_date(value) - _date(headers.get("date", ""))).total_seconds()
    except (ValueError, OverflowError, TypeError):  # TypeError: one moment with a zone and one without
        return None
    return min(max(seconds, 0.0), LONGEST_PAUSE)


def _date(text: str) -> datetime:
    return parsedate_to_datetime(text)


def _worst(reply: Reply, verdict: Callable[[int], int]) -> int:
    """Of the HTTP code and the body's ``status`` the one with the graver verdict."""
    status = None if reply.envelope is None else reply.envelope.status
    if status is None:
        return reply.code
    if not 100 <= status <= 599:
        if not 200 <= reply.code < 300:
            return reply.code
        status = _UNKNOWN
    return max(reply.code, status, key=verdict)


def _answer(reply: Reply) -> Answer:
    """What is known of the task; of an answer that broke off, the task_id."""
    if reply.envelope is None:
        return Answer(task_id=reply.task_id)
    return read_answer(reply.envelope.data, reply.secret)


def _address(reply: Reply) -> str | None:
    """``data.image`` if it can be downloaded from."""
    image = None if reply.envelope is None else reply.envelope.image
    usable = image is not None and image.isprintable() and image.lower().startswith(("http://", "https://"))
    return image if usable else None


def _failed(answer: Answer, state: int) -> TaskFailed:
    meaning = meaning_of(state)
    detail = f" ({answer.state_detail})" if answer.state_detail else ""
    problem = Problem(ErrorCode.TASK_FAILED, f"PicWish could not enhance it, state {state}: {meaning.says}{detail}.")
    return TaskFailed(answer.task_id, answer, state, problem, again=meaning.fate is Fate.FAILED)


def _unauthorized(reply: Reply) -> Unauthorized:
    return Unauthorized(
        f"PicWish does not accept the API key ({_said(reply)}); "
        "check the key, whether the service is enabled for it, and whether credits are left"
    )


def _said(reply: Reply) -> str:
    """HTTP code, body's status where it differs, and message."""
    text = f"HTTP {reply.code}"
    envelope = reply.envelope
    if envelope is None:
        return text
    if envelope.status is not None and envelope.status != reply.code:
        text += f", status {envelope.status}"
    message = plain(envelope.message, reply.secret)
    return f'{text} "{message}"' if message else text
