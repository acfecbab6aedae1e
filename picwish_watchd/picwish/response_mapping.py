"""Turn a whole response into an outcome: pure functions.

Of the HTTP code and the body's ``status`` the worse one counts. For a create, the worst is doubt about money. For a
query, a verdict that may end the job gives way to any other failure.
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

#: Seconds. A longer Retry-After is cut to this.
MAX_RETRY_AFTER = 3600.0

# Replaces a `status` that is no HTTP code.
_UNKNOWN_STATUS = 0


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """The response to one request, as far as it arrived."""

    #: The code of HTTP.
    http_status: int
    #: Seconds to wait, as the server requests.
    retry_after: float | None = None
    #: None if the body was unreadable; `parse_error` says why.
    envelope: Envelope | None = None
    parse_error: str = ""
    #: Known even if the response broke off after it.
    task_id: str | None = None
    #: Bytes of a complete base64 image in the sink.
    spooled_bytes: int | None = None
    #: What is wrong with the image.
    image_defect: str | None = None
    #: Why this machine could not store the image.
    store_error: str | None = None
    #: The API key, which is removed from texts.
    secret: str = field(default="", repr=False)


class _CreateVerdict(IntEnum):
    """The meanings of a response to a create; a higher value is worse."""

    ACCEPTED = 0
    RETRY_LATER = 1
    REFUSED = 2
    UNAUTHORIZED = 3
    IN_DOUBT = 4


# Codes that concern the way or the time of the request and not the image; nothing was accepted.
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


def map_create_response(response: ApiResponse, *, size: int = 0) -> CreateOutcome:
    """Return the outcome of a POST that has a response.

    ``size`` is the number of bytes of the image, for the message about one that is too large.
    """
    code = _worst_code(response, _classify_create)
    verdict = _classify_create(code)
    if (
        verdict not in (_CreateVerdict.ACCEPTED, _CreateVerdict.IN_DOUBT)
        and (task_info := _extract_task_info(response)).task_id is not None
    ):
        # Whatever else the response says, the task exists and must not be submitted again.
        return Accepted(task_info.task_id, task_info)
    if verdict in (_CreateVerdict.ACCEPTED, _CreateVerdict.IN_DOUBT):
        return _map_accepted(response, sure=verdict is _CreateVerdict.ACCEPTED)
    if verdict is _CreateVerdict.UNAUTHORIZED:
        return _build_unauthorized(response)
    if verdict is _CreateVerdict.RETRY_LATER:
        return NotAccepted(_describe_not_accepted(code, response), response.retry_after, rate_limited=code == 429)
    return Refused(_build_refusal(code, response, size))


def _map_accepted(response: ApiResponse, *, sure: bool) -> CreateOutcome:
    """Return the outcome of a create that PicWish accepted, or (not ``sure``) may have accepted.

    A task_id removes the doubt, because the task can be queried.
    """
    task_info = _extract_task_info(response)
    category = None if task_info.state is None else classify_state(task_info.state).category
    if (
        sure
        and task_info.state is not None
        and category in (StateCategory.FAILED_RETRYABLE, StateCategory.FAILED_PERMANENT)
    ):
        return _map_failure(task_info, task_info.state)
    image_url = _extract_image_url(response)
    has_image = image_url is not None or response.spooled_bytes is not None
    is_done = category is StateCategory.SUCCEEDED or (category is None and task_info.task_id is None)
    if sure and has_image and is_done:
        return Finished(task_info.task_id, task_info, image_url, response.spooled_bytes)
    if task_info.task_id is not None:
        return Accepted(task_info.task_id, task_info)
    missing = "and gave no task_id" if response.envelope is not None else f"and {response.parse_error}"
    missing += f"; {response.store_error}" if response.store_error else ""
    return InDoubt(f"PicWish answered {_describe_response(response)} {missing}")


def _describe_not_accepted(code: int, response: ApiResponse) -> str:
    if 300 <= code < 400:
        text = _describe_response(response)
        return f"PicWish redirects ({text}), which is never followed with a key; check api.base_url"
    if code in (404, 405, 410, 421):
        return f"there is no such service at this address ({_describe_response(response)}); check api.base_url"
    if code == 429:
        return f"PicWish accepts no more requests at the moment ({_describe_response(response)})"
    return f"PicWish did not accept the request ({_describe_response(response)})"


def _build_refusal(code: int, response: ApiResponse, size: int) -> Problem:
    if code == 413:
        size_text = f" The file has {size / 1e6:.1f} MB." if size else ""
        message = (
            f"PicWish finds the image too large ({_describe_response(response)}).{size_text} "
            "Its limits are 30 MB and 4096 x 4096 pixels; make it smaller."
        )
        return Problem(ErrorCode.PAYLOAD_TOO_LARGE, message)
    text = _describe_response(response)
    message = f"PicWish refused the request for this image ({text}). Correct the cause, then use `retry`."
    return Problem(ErrorCode.BAD_REQUEST, message)


class _QueryVerdict(IntEnum):
    """The meanings of a response to a query; the higher value is believed."""

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


def map_query_response(response: ApiResponse, task_id: str) -> QueryOutcome:
    """Return the outcome of a query of ``task_id`` that has a response."""
    match _classify_query(_worst_code(response, _classify_query)):
        case _QueryVerdict.TASK_NOT_FOUND:
            return TaskNotFound(f"PicWish does not know the task {sanitize(task_id)} ({_describe_response(response)})")
        case _QueryVerdict.RATE_LIMITED:
            return RateLimited(response.retry_after)
        case _QueryVerdict.UNAUTHORIZED:
            return _build_unauthorized(response)
        case _QueryVerdict.UNAVAILABLE:
            return Unavailable(f"PicWish answered {_describe_response(response)}", response.retry_after)
        case _QueryVerdict.ANSWERED:
            return _map_answered_query(response, task_id)


def _map_answered_query(response: ApiResponse, task_id: str) -> QueryOutcome:
    task_info = _extract_task_info(response)
    if response.envelope is None:
        return Unavailable(
            f"PicWish answered {_describe_response(response)} and {response.parse_error}", response.retry_after
        )
    if task_info.task_id is not None and task_info.task_id != task_id.strip():
        return Unavailable("PicWish answered about a task other than the requested one")
    if task_info.state is None:
        return Unavailable(
            f"PicWish answered {_describe_response(response)} without the task's state", response.retry_after
        )
    match classify_state(task_info.state).category:
        case StateCategory.IN_PROGRESS:
            return Processing(task_info)
        case StateCategory.SUCCEEDED:
            return _map_success(response, task_info)
        case StateCategory.FAILED_RETRYABLE | StateCategory.FAILED_PERMANENT:
            return _map_failure(replace(task_info, task_id=task_id), task_info.state)


def _map_success(response: ApiResponse, task_info: TaskInfo) -> QueryOutcome:
    if response.store_error is not None:
        return NotStored(response.store_error)
    image_url = _extract_image_url(response)
    if image_url is not None or response.spooled_bytes is not None:
        return Succeeded(task_info, image_url, response.spooled_bytes)
    return Succeeded(
        task_info, None, None, response.image_defect or "PicWish's response has no usable image in data.image"
    )


def map_probe_response(response: ApiResponse) -> ProbeOutcome:
    """Return the outcome of a query of a task that cannot exist: 404 and 400 come only from an API that works."""
    code = _worst_code(response, _classify_query)
    match _classify_query(code):
        case _QueryVerdict.UNAUTHORIZED:
            return _build_unauthorized(response)
        case _QueryVerdict.RATE_LIMITED:
            return RateLimited(response.retry_after)
        case _QueryVerdict.TASK_NOT_FOUND:
            return Healthy()
        case _QueryVerdict.ANSWERED if response.envelope is not None:
            return Healthy()
        case _ if code in (400, 422):
            return Healthy()
        case _:
            return Unavailable(f"PicWish answered {_describe_response(response)}", response.retry_after)


def create_code_label(response: ApiResponse) -> str:
    """Return the code that decided about a create, of HTTP or of the body's ``status``, for statistics."""
    return code_label(_worst_code(response, _classify_create))


def query_code_label(response: ApiResponse) -> str:
    """Return the code that decided about a query or a probe, of HTTP or of the body's ``status``, for statistics."""
    return code_label(_worst_code(response, _classify_query))


def code_label(code: int) -> str:
    """Return an HTTP code (100 to 599; RFC 9110, 15) as a label; all other numbers share one label."""
    return str(code) if 100 <= code <= 599 else "other"


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return ``Retry-After`` in seconds (RFC 9110, 10.2.3), from 0 to `MAX_RETRY_AFTER`; None without a readable one.

    A date is compared with the ``Date`` of the same response, so the clock of this machine does not matter.
    """
    value = headers.get("retry-after", "").strip()
    try:
        seconds = (
            float(value)
            if value.isdecimal()
            else (_parse_http_date(value) - _parse_http_date(headers.get("date", ""))).total_seconds()
        )
    except (ValueError, OverflowError, TypeError):
        # A TypeError means that one date has a time zone and the other has none.
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _parse_http_date(text: str) -> datetime:
    return parsedate_to_datetime(text)


def _worst_code(response: ApiResponse, classify: Callable[[int], int]) -> int:
    """Return the HTTP code or the body's ``status``, whichever has the graver verdict."""
    status = None if response.envelope is None else response.envelope.status
    if status is None:
        return response.http_status
    if not 100 <= status <= 599:
        if not 200 <= response.http_status < 300:
            return response.http_status
        status = _UNKNOWN_STATUS
    return max(response.http_status, status, key=classify)


def _extract_task_info(response: ApiResponse) -> TaskInfo:
    """Return what is known about the task; for a response that broke off, only the task_id."""
    if response.envelope is None:
        return TaskInfo(task_id=response.task_id)
    return parse_task_info(response.envelope.data, response.secret)


def _extract_image_url(response: ApiResponse) -> str | None:
    """Return ``data.image`` if it is a URL that can be downloaded."""
    image = None if response.envelope is None else response.envelope.image_url
    usable = image is not None and image.isprintable() and image.lower().startswith(("http://", "https://"))
    return image if usable else None


def _map_failure(task_info: TaskInfo, state: int) -> TaskFailed:
    state_info = classify_state(state)
    detail = f" ({task_info.state_detail})" if task_info.state_detail else ""
    problem = Problem(
        ErrorCode.TASK_FAILED, f"PicWish could not enhance it, state {state}: {state_info.description}{detail}."
    )
    return TaskFailed(
        task_info.task_id, task_info, state, problem, is_retryable=state_info.category is StateCategory.FAILED_RETRYABLE
    )


def _build_unauthorized(response: ApiResponse) -> Unauthorized:
    return Unauthorized(
        f"PicWish does not accept the API key ({_describe_response(response)}); "
        "check the key, whether the service is enabled for it, and whether credits are left"
    )


def _describe_response(response: ApiResponse) -> str:
    """Return the HTTP code, the body's ``status`` where it differs, and the message."""
    text = f"HTTP {response.http_status}"
    envelope = response.envelope
    if envelope is None:
        return text
    if envelope.status is not None and envelope.status != response.http_status:
        text += f", status {envelope.status}"
    message = sanitize(envelope.message, response.secret)
    return f'{text} "{message}"' if message else text
