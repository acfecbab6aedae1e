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
    CreateOutcome,
    Finished,
    Healthy,
    InDoubt,
    NotAccepted,
    NotStored,
    ProbeOutcome,
    Processing,
    QueryOutcome,
    RateLimited,
    Refused,
    Succeeded,
    TaskFailed,
    TaskNotFound,
    Unauthorized,
    Unavailable,
)
from picwish_watchd.picwish.sanitize import sanitize
from picwish_watchd.picwish.streaming_json import Envelope
from picwish_watchd.picwish.task_info import TaskInfo, parse_task_info
from picwish_watchd.picwish.task_states import StateCategory, classify_state

#: seconds; no Retry-After is obeyed for longer
MAX_RETRY_AFTER = 3600.0

# stands for a `status` that is no HTTP code
_UNKNOWN_STATUS = 0


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """What came back for one request, as far as it came."""

    #: HTTP
    http_status: int
    #: seconds
    retry_after: float | None = None
    #: None: `unreadable` says why
    envelope: Envelope | None = None
    parse_error: str = ""
    #: known even where the answer broke off behind it
    task_id: str | None = None
    #: bytes of a whole base64 picture in the sink
    spooled_bytes: int | None = None
    #: what is wrong with the picture
    image_defect: str | None = None
    #: why this machine could not keep the picture
    store_error: str | None = None
    #: the key, to be taken out of texts
    secret: str = field(default="", repr=False)


class _CreateVerdict(IntEnum):
    """Answers to a create, the later the worse."""

    ACCEPTED = 0
    RETRY_LATER = 1
    REFUSED = 2
    UNAUTHORIZED = 3
    IN_DOUBT = 4


#: 4xx that speak of the request's way or time and not of the picture; nothing was taken.
_RETRYABLE_CODES = frozenset({404, 405, 407, 408, 410, 421, 425, 429, 503})
_UNAUTHORIZED_CODES = frozenset({401, 402, 403})


def _classify_create(code: int) -> _CreateVerdict:
    if 200 <= code < 300:
        return _CreateVerdict.ACCEPTED
    if code in _UNAUTHORIZED_CODES:
        return _CreateVerdict.UNAUTHORIZED
    if code in _RETRYABLE_CODES or 300 <= code < 400:
        return _CreateVerdict.RETRY_LATER
    return _CreateVerdict.REFUSED if 400 <= code < 500 else _CreateVerdict.IN_DOUBT


def map_create_response(reply: ApiResponse, *, size: int = 0) -> CreateOutcome:
    """The outcome of a POST that was answered.

    Args:
        reply: what came.
        size: bytes of the picture, for the message about one that is too large.
    """
    code = _worst_code(reply, _classify_create)
    verdict = _classify_create(code)
    if (
        verdict not in (_CreateVerdict.ACCEPTED, _CreateVerdict.IN_DOUBT)
        and (answer := _extract_task_info(reply)).task_id is not None
    ):
        # whatever else it says: the task exists, and is not submitted again
        return Accepted(answer.task_id, answer)
    if verdict in (_CreateVerdict.ACCEPTED, _CreateVerdict.IN_DOUBT):
        return _map_accepted(reply, sure=verdict is _CreateVerdict.ACCEPTED)
    if verdict is _CreateVerdict.UNAUTHORIZED:
        return _build_unauthorized(reply)
    if verdict is _CreateVerdict.RETRY_LATER:
        return NotAccepted(_describe_not_accepted(code, reply), reply.retry_after, rate_limited=code == 429)
    return Refused(_build_refusal(code, reply, size))


def _map_accepted(reply: ApiResponse, *, sure: bool) -> CreateOutcome:
    """A create that was, or (not ``sure``) may have been taken; a task_id ends all doubt, for it can be asked about."""
    answer = _extract_task_info(reply)
    fate = None if answer.state is None else classify_state(answer.state).category
    if sure and answer.state is not None and fate in (StateCategory.FAILED_RETRYABLE, StateCategory.FAILED_PERMANENT):
        return _map_failure(answer, answer.state)
    image = _extract_image_url(reply)
    whole = image is not None or reply.spooled_bytes is not None
    done = fate is StateCategory.SUCCEEDED or (fate is None and answer.task_id is None)
    if sure and whole and done:
        return Finished(answer.task_id, answer, image, reply.spooled_bytes)
    if answer.task_id is not None:
        return Accepted(answer.task_id, answer)
    missing = "and gave no task_id" if reply.envelope is not None else f"and {reply.parse_error}"
    missing += f"; {reply.store_error}" if reply.store_error else ""
    return InDoubt(f"PicWish answered {_describe_response(reply)} {missing}")


def _describe_not_accepted(code: int, reply: ApiResponse) -> str:
    if 300 <= code < 400:
        return (
            f"PicWish redirects ({_describe_response(reply)}), which is never followed with a key; check api.base_url"
        )
    if code in (404, 405, 410, 421):
        return f"there is no such service at this address ({_describe_response(reply)}); check api.base_url"
    if code == 429:
        return f"PicWish takes no more requests for the moment ({_describe_response(reply)})"
    return f"PicWish did not take the request ({_describe_response(reply)})"


def _build_refusal(code: int, reply: ApiResponse, size: int) -> Problem:
    if code == 413:
        found = f" The file has {size / 1e6:.1f} MB." if size else ""
        message = (
            f"PicWish finds the picture too large ({_describe_response(reply)}).{found} "
            "Its limits are 30 MB and 4096 x 4096 pixels; make it smaller."
        )
        return Problem(ErrorCode.PAYLOAD_TOO_LARGE, message)
    message = (
        f"PicWish refused the request for this picture ({_describe_response(reply)}). Correct that and use `retry`."
    )
    return Problem(ErrorCode.BAD_REQUEST, message)


class _QueryVerdict(IntEnum):
    """Answers to a query, in the order in which they are believed."""

    ANSWERED = 0
    TASK_NOT_FOUND = 1
    UNAVAILABLE = 2
    RATE_LIMITED = 3
    UNAUTHORIZED = 4


def _classify_query(code: int) -> _QueryVerdict:
    if 200 <= code < 300:
        return _QueryVerdict.ANSWERED
    if code in (404, 410):
        return _QueryVerdict.TASK_NOT_FOUND
    if code == 429:
        return _QueryVerdict.RATE_LIMITED
    return _QueryVerdict.UNAUTHORIZED if code in _UNAUTHORIZED_CODES else _QueryVerdict.UNAVAILABLE


def map_query_response(reply: ApiResponse, task_id: str) -> QueryOutcome:
    """The outcome of a GET of ``task_id`` that was answered."""
    match _classify_query(_worst_code(reply, _classify_query)):
        case _QueryVerdict.TASK_NOT_FOUND:
            return TaskNotFound(f"PicWish does not know the task {sanitize(task_id)} ({_describe_response(reply)})")
        case _QueryVerdict.RATE_LIMITED:
            return RateLimited(reply.retry_after)
        case _QueryVerdict.UNAUTHORIZED:
            return _build_unauthorized(reply)
        case _QueryVerdict.UNAVAILABLE:
            return Unavailable(f"PicWish answered {_describe_response(reply)}", reply.retry_after)
        case _QueryVerdict.ANSWERED:
            return _map_answered_query(reply, task_id)


def _map_answered_query(reply: ApiResponse, task_id: str) -> QueryOutcome:
    answer = _extract_task_info(reply)
    if reply.envelope is None:
        return Unavailable(f"PicWish answered {_describe_response(reply)} and {reply.parse_error}", reply.retry_after)
    if answer.task_id is not None and answer.task_id != task_id.strip():
        return Unavailable("PicWish answered about another task than the one that was asked for")
    if answer.state is None:
        return Unavailable(f"PicWish answered {_describe_response(reply)} without the task's state", reply.retry_after)
    match classify_state(answer.state).category:
        case StateCategory.IN_PROGRESS:
            return Processing(answer)
        case StateCategory.SUCCEEDED:
            return _map_success(reply, answer)
        case StateCategory.FAILED_RETRYABLE | StateCategory.FAILED_PERMANENT:
            return _map_failure(replace(answer, task_id=task_id), answer.state)


def _map_success(reply: ApiResponse, answer: TaskInfo) -> QueryOutcome:
    if reply.store_error is not None:
        return NotStored(reply.store_error)
    image = _extract_image_url(reply)
    if image is not None or reply.spooled_bytes is not None:
        return Succeeded(answer, image, reply.spooled_bytes)
    return Succeeded(answer, None, None, reply.image_defect or "PicWish's answer has no usable picture in data.image")


def map_probe_response(reply: ApiResponse) -> ProbeOutcome:
    """The outcome of a GET of a task that cannot exist: 404, like 400, comes only from an API that is well."""
    code = _worst_code(reply, _classify_query)
    match _classify_query(code):
        case _QueryVerdict.UNAUTHORIZED:
            return _build_unauthorized(reply)
        case _QueryVerdict.RATE_LIMITED:
            return RateLimited(reply.retry_after)
        case _QueryVerdict.TASK_NOT_FOUND:
            return Healthy()
        case _QueryVerdict.ANSWERED if reply.envelope is not None:
            return Healthy()
        case _ if code in (400, 422):
            return Healthy()
        case _:
            return Unavailable(f"PicWish answered {_describe_response(reply)}", reply.retry_after)


def create_code_label(reply: ApiResponse) -> str:
    """The code that decided about a create, for statistics: HTTP's or that of the body's ``status``."""
    return code_label(_worst_code(reply, _classify_create))


def query_code_label(reply: ApiResponse) -> str:
    """The code that decided about a query or a probe, for statistics."""
    return code_label(_worst_code(reply, _classify_query))


def code_label(code: int) -> str:
    """A code in a word of its own; whatever is none (RFC 9110, 15) shares one."""
    return str(code) if 100 <= code <= 599 else "other"


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """``Retry-After`` in seconds (RFC 9110, 10.2.3), from 0 to `LONGEST_PAUSE`; None where there is no readable one.

    A moment is compared with the ``Date`` of the same answer, so that the clock of this machine does not matter.
    """
    value = headers.get("retry-after", "").strip()
    try:
        seconds = (
            float(value)
            if value.isdecimal()
            else (_parse_http_date(value) - _parse_http_date(headers.get("date", ""))).total_seconds()
        )
    except (ValueError, OverflowError, TypeError):
        # TypeError: one moment with a zone and one without
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _parse_http_date(text: str) -> datetime:
    return parsedate_to_datetime(text)


def _worst_code(reply: ApiResponse, verdict: Callable[[int], int]) -> int:
    """Of the HTTP code and the body's ``status`` the one with the graver verdict."""
    status = None if reply.envelope is None else reply.envelope.status
    if status is None:
        return reply.http_status
    if not 100 <= status <= 599:
        if not 200 <= reply.http_status < 300:
            return reply.http_status
        status = _UNKNOWN_STATUS
    return max(reply.http_status, status, key=verdict)


def _extract_task_info(reply: ApiResponse) -> TaskInfo:
    """What is known of the task; of an answer that broke off, the task_id."""
    if reply.envelope is None:
        return TaskInfo(task_id=reply.task_id)
    return parse_task_info(reply.envelope.data, reply.secret)


def _extract_image_url(reply: ApiResponse) -> str | None:
    """``data.image`` if it can be downloaded from."""
    image = None if reply.envelope is None else reply.envelope.image_url
    usable = image is not None and image.isprintable() and image.lower().startswith(("http://", "https://"))
    return image if usable else None


def _map_failure(answer: TaskInfo, state: int) -> TaskFailed:
    meaning = classify_state(state)
    detail = f" ({answer.state_detail})" if answer.state_detail else ""
    problem = Problem(
        ErrorCode.TASK_FAILED, f"PicWish could not enhance it, state {state}: {meaning.description}{detail}."
    )
    return TaskFailed(
        answer.task_id, answer, state, problem, is_retryable=meaning.category is StateCategory.FAILED_RETRYABLE
    )


def _build_unauthorized(reply: ApiResponse) -> Unauthorized:
    return Unauthorized(
        f"PicWish does not accept the API key ({_describe_response(reply)}); "
        "check the key, whether the service is enabled for it, and whether credits are left"
    )


def _describe_response(reply: ApiResponse) -> str:
    """HTTP code, body's status where it differs, and message."""
    text = f"HTTP {reply.http_status}"
    envelope = reply.envelope
    if envelope is None:
        return text
    if envelope.status is not None and envelope.status != reply.http_status:
        text += f", status {envelope.status}"
    message = sanitize(envelope.message, reply.secret)
    return f'{text} "{message}"' if message else text
