"""A job as JSON for scripts: stable names, plain values, times in UTC."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from picwish_watchd.job import ErrorCode, Job, JobEvent, OriginalStatus, Problem, Result, SourceKind, Stamp, State
from picwish_watchd.job_json import event_to_dict, job_to_dict, render_sidecar
from picwish_watchd.wording import iso_utc

PROMISED_KEYS = {
    "id",
    "rule",
    "source",
    "state",
    "task_id",
    "type",
    "return_type",
    "sync",
    "sha256",
    "size",
    "width",
    "height",
    "credits",
    "attempts",
    "error",
    "output",
    "created_at",
    "submitted_at",
    "completed_at",
}
JOB = Job(
    id=7,
    rule="scans",
    state=State.DONE,
    source=Path("/inbox/a.jpg"),
    relative=Path("a.jpg"),
    stamp=Stamp(1, 1234, 5),
    kind=SourceKind.FILE,
    url=None,
    sha256="ab" * 32,
    format="jpeg",
    width=640,
    height=480,
    type=0,
    return_type=1,
    sync=0,
    task_id="t-1",
    attempts=1,
    refusals=0,
    credits=5,
    credits_in_doubt=0,
    paid=False,
    problem=None,
    result=Result("png", 2560, 1920, 99, "cd" * 32),
    output=Path("/outbox/a.png"),
    original=OriginalStatus.PRESENT,
    note=None,
    pay_again=False,
    answer='{"state": 1, "progress": 100}',
    not_before=None,
    created_at=1_764_000_000.0,
    submitted_at=1_764_000_001.5,
    completed_at=1_764_000_009.25,
)
QUEUED_JOB = replace(
    JOB, state=State.QUEUED, task_id=None, result=None, output=None, answer=None, submitted_at=None, completed_at=None
)


def test_everything_promised_to_scripts_is_there() -> None:
    document = json.loads(json.dumps(job_to_dict(JOB)))
    assert set(document) >= PROMISED_KEYS
    assert (document["id"], document["state"], document["size"], document["credits"]) == (7, "done", 1234, 5)
    assert (document["source"], document["output"], document["error"]) == ("/inbox/a.jpg", "/outbox/a.png", None)
    assert document["result"] == {"format": "png", "width": 2560, "height": 1920, "size": 99, "sha256": "cd" * 32}
    assert document["answer"] == {"state": 1, "progress": 100}


def test_what_is_not_known_yet_is_null_and_not_left_out() -> None:
    document = job_to_dict(QUEUED_JOB)
    assert set(document) == set(job_to_dict(JOB))
    assert [document[name] for name in ("task_id", "output", "result", "answer", "submitted_at", "completed_at")] == [
        None
    ] * 6


def test_an_error_is_a_word_and_a_sentence() -> None:
    job = replace(QUEUED_JOB, state=State.FAILED, problem=Problem(ErrorCode.TASK_FAILED, "PicWish failed: state -7"))
    document = json.loads(json.dumps(job_to_dict(job)))
    assert document["error"] == {"code": "task_failed", "message": "PicWish failed: state -7"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, None),
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1_764_000_001.5, "2025-11-24T16:00:01.500Z"),
        (1_764_000_001.9996, "2025-11-24T16:00:01.999Z"),
    ],
)
def test_times_are_iso_8601_in_utc_with_milliseconds(seconds: float | None, text: str | None) -> None:
    assert iso_utc(seconds) == text


def test_a_line_of_history_is_plain() -> None:
    event = JobEvent(0.0, State.PENDING, "PicWish took it as task t-1")
    assert json.loads(json.dumps(event_to_dict(event))) == {
        "at": "1970-01-01T00:00:00.000Z",
        "state": "pending",
        "message": "PicWish took it as task t-1",
    }


def test_a_sidecar_is_the_same_object_as_indented_text() -> None:
    text = render_sidecar(JOB)
    assert json.loads(text) == json.loads(json.dumps(job_to_dict(JOB)))
    assert text.endswith("}\n")
    assert "\n  " in text


def test_a_name_that_is_not_utf8_is_written_as_ascii_and_found_again() -> None:
    job = replace(JOB, source=Path(os.fsdecode(b"/inbox/caf\xe9.jpg")))
    assert render_sidecar(job).isascii()
    assert os.fsencode(json.loads(render_sidecar(job))["source"]) == b"/inbox/caf\xe9.jpg"
