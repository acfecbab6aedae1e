"""Mapping of responses, task states and pauses by pure functions."""

import json
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from picwish_watchd.job import ErrorCode
from picwish_watchd.picwish import (
    Accepted,
    CreateOutcome,
    InDoubt,
    NotAccepted,
    ProbeOutcome,
    QueryOutcome,
    Refused,
    TaskFailed,
    TaskInfo,
    TaskNotFound,
    Unauthorized,
    Unavailable,
)
from picwish_watchd.picwish.response_mapping import (
    ApiResponse,
    map_create_response,
    map_probe_response,
    map_query_response,
    parse_retry_after,
)
from picwish_watchd.picwish.sanitize import MAX_TEXT_LENGTH, sanitize
from picwish_watchd.picwish.streaming_json import Envelope
from picwish_watchd.picwish.task_info import parse_task_id, parse_task_info
from picwish_watchd.picwish.task_states import TASK_STATES, StateCategory, classify_state
from tests.support.picwish_client import TASK_ID

FULL_TASK: dict[str, object] = {
    "task_id": TASK_ID,
    "created_at": 1700000000,
    "processed_at": 1700000001,
    "completed_at": 1700000008.5,
    "return_type": 1,
    "type": 0,
    "progress": 100,
    "state": 1,
    "image_width": 2048,
    "image_height": 1024,
    "image_size_kb": 812.5,
    "out_format": "jpg",
    "state_detail": "Complete",
    "download_time": 12,
    "time_elapsed": 8000,
}


def make_envelope(status: int | None = 200, **data: object) -> Envelope:
    return Envelope(status=status, message="m", data=data, image_url=None)


def test_every_field_of_the_document_is_read_and_written() -> None:
    task = parse_task_info(FULL_TASK)
    assert json.loads(task.to_json()) == FULL_TASK
    assert set(TaskInfo.__dataclass_fields__) == set(FULL_TASK)


def test_numbers_as_strings_are_the_same() -> None:
    spelled = {k: v if isinstance(v, str) else str(v) for k, v in FULL_TASK.items()}
    assert parse_task_info(spelled) == parse_task_info(FULL_TASK)


any_json = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=1)


# The first draw builds Hypothesis' table of Unicode characters, which takes long on a busy machine.
@pytest.mark.untraced
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(sorted(FULL_TASK)), any_json, max_size=5))
def test_no_answer_is_too_strange_to_be_read(data: dict[str, object]) -> None:
    json.loads(parse_task_info(data).to_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_milliseconds_are_seconds_and_zero_is_not_yet() -> None:
    task = parse_task_info({"created_at": 1700000000500, "processed_at": 0, "completed_at": "0"})
    assert (task.created_at, task.processed_at, task.completed_at) == (1700000000.5, None, None)


@pytest.mark.parametrize(
    ("given_id", "expected"),
    [
        (" abc ", "abc"),
        (12345, "12345"),
        ("x" * 256, "x" * 256),
        ("", None),
        ("..", None),
        ("a b", None),
        ("a\nb", None),
        ("x" * 257, None),
        (True, None),
        (None, None),
        (1.5, None),
    ],
)
def test_a_task_id_must_be_usable_in_a_query(given_id: object, expected: str | None) -> None:
    assert parse_task_id(given_id) == expected


def test_failed_states_are_retried_or_not_as_the_contract_says() -> None:
    again = {state for state, meaning in TASK_STATES.items() if meaning.category is StateCategory.FAILED_RETRYABLE}
    hopeless = {state for state, meaning in TASK_STATES.items() if meaning.category is StateCategory.FAILED_PERMANENT}
    assert again == {-1, -2, -3, -8, -9, -13, -15}
    assert hopeless == {-5, -7, -10, -11, -14, -16, -17}


@given(st.integers())
def test_every_state_has_a_meaning(state: int) -> None:
    meaning = classify_state(state)
    assert meaning.description
    assert (meaning.category is StateCategory.SUCCEEDED) is (state == 1)
    assert (meaning.category is StateCategory.IN_PROGRESS) is (state == 0 or state > 1)


@pytest.mark.parametrize("state", sorted(s for s in TASK_STATES if s < 0))
def test_a_failed_state_is_described_by_number_and_sentence(state: int) -> None:
    outcome = map_query_response(ApiResponse(200, envelope=make_envelope(state=state)), TASK_ID)
    assert isinstance(outcome, TaskFailed)
    assert outcome.problem.code is ErrorCode.TASK_FAILED
    assert f"state {state}:" in outcome.problem.message
    assert TASK_STATES[state].description in outcome.problem.message
    assert outcome.task_id == TASK_ID


CODES = [None, 0, 200, 201, 302, 400, 401, 404, 413, 429, 500, 502, 503, 504, 599, 10014, -5]


@pytest.mark.parametrize("code", [code for code in CODES if code and 100 <= code < 600])
def test_every_pair_of_codes_has_an_outcome(code: int) -> None:
    for status in CODES:
        reply = ApiResponse(code, envelope=make_envelope(status))
        assert isinstance(map_create_response(reply), get_args(CreateOutcome))
        assert isinstance(map_query_response(reply, TASK_ID), get_args(QueryOutcome))
        assert isinstance(map_probe_response(reply), get_args(ProbeOutcome))


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        (200, 500, InDoubt),
        (500, 200, InDoubt),
        (400, 500, InDoubt),
        (429, 500, InDoubt),
        (200, 10014, InDoubt),
        (200, 0, InDoubt),
        (400, 10014, Refused),
        (200, 400, Refused),
        (429, 400, Refused),
        (400, 401, Unauthorized),
        (200, 429, NotAccepted),
        (429, 200, NotAccepted),
    ],
)
def test_the_worse_of_two_codes_counts_for_a_create(code: int, status: int, kind: type) -> None:
    assert isinstance(map_create_response(ApiResponse(code, envelope=make_envelope(status))), kind)


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        (200, 404, TaskNotFound),
        (404, 200, TaskNotFound),
        (404, 404, TaskNotFound),
        (404, 500, Unavailable),
        (500, 404, Unavailable),
        (404, 401, Unauthorized),
        (200, 10014, Unavailable),
    ],
)
def test_a_query_does_not_end_a_job_on_a_doubtful_code(code: int, status: int, kind: type) -> None:
    assert isinstance(map_query_response(ApiResponse(code, envelope=make_envelope(status)), TASK_ID), kind)


def test_a_task_id_ends_the_doubt_with_any_codes() -> None:
    for code, status in [(200, 500), (500, 200), (502, None), (200, 0), (200, 10014)]:
        outcome = map_create_response(ApiResponse(code, envelope=make_envelope(status, task_id=TASK_ID)))
        assert isinstance(outcome, Accepted)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "12"}, 12.0),
        ({"retry-after": " 0 "}, 0.0),
        ({"retry-after": "999999999999"}, 3600.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}, None),
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT", "date": "Fri, 31 Dec 1999 23:59:29 GMT"}, 30.0),
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT", "date": "Sat, 01 Jan 2000 00:00:29 GMT"}, 0.0),
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 -0000", "date": "Fri, 31 Dec 1999 23:59:29 GMT"}, None),
        ({"retry-after": "Fri, 99 Dec 1999 23:59:59 GMT", "date": "Fri, 31 Dec 1999 23:59:29 GMT"}, None),
        ({"retry-after": "²"}, None),
        ({"retry-after": f"Fri, {10**20} Dec 1999 23:59:59 GMT", "date": "Fri, 31 Dec 1999 23:59:29 GMT"}, None),
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT", "date": f"Fri, 31 Dec 1999 23:59:29 +{10**20}"}, None),
    ],
)
def test_a_pause_is_read_in_seconds_or_by_the_servers_own_clock(
    headers: dict[str, str], expected: float | None
) -> None:
    assert parse_retry_after(headers) == expected


@pytest.mark.untraced
@given(st.text(), st.text())
def test_any_text_becomes_one_short_printable_line(text: str, secret: str) -> None:
    line = sanitize(text, secret)
    assert line.isprintable()
    assert len(line) <= MAX_TEXT_LENGTH


def test_keys_and_signatures_are_taken_out_of_texts() -> None:
    text = 'see HTTPS://x.example/a?Signature=1#2, "oss://b/c?d" and\nkey=abcdef; http://y.example/z'
    assert sanitize(text, "abcdef") == 'see HTTPS://x.example/a "oss://b/c" and key=***; http://y.example/z'
