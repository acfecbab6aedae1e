"""Transitions: only legal ones, each checked against the current state and recorded in the history."""

import sqlite3
from contextlib import suppress
from itertools import product
from pathlib import Path

import pytest

from picwish_watchd.job import ALLOWED_TRANSITIONS, ErrorCode, JobEvent, OriginalStatus, Problem, Result, Stamp, State
from picwish_watchd.journal import writer
from picwish_watchd.journal.writer import Journal, StaleJobError
from tests.support.fake_clock import FakeClock
from tests.unit.journal.job_factory import add_job, add_job_in_state, get_job, new_job, path_to_state

PAIRS = list(product(State, State))
LEGAL = [(here, there) for here, there in PAIRS if there in ALLOWED_TRANSITIONS[here]]
ILLEGAL = [pair for pair in PAIRS if pair not in LEGAL]
PROBLEM = Problem(ErrorCode.NOT_AN_IMAGE, "a.jpg holds no image")
RESULT = Result("png", 4096, 2048, 99_999, "cd" * 32)


@pytest.mark.parametrize(("here", "there"), LEGAL)
def test_an_allowed_transition_changes_the_state_and_adds_an_event(journal: Journal, here: State, there: State) -> None:
    job = add_job_in_state(journal, here)
    moved = journal.transition(job, there, "for a reason")
    assert moved.state is there
    assert get_job(journal, job.id) == moved
    assert journal.history(job.id)[-1].state is there
    assert journal.history(job.id)[-1].message == "for a reason"


@pytest.mark.parametrize(("here", "there"), ILLEGAL)
def test_a_transition_that_is_not_allowed_changes_nothing(journal: Journal, here: State, there: State) -> None:
    job = add_job_in_state(journal, here)
    before = journal.history(job.id)
    with pytest.raises(ValueError, match=f"{here} -> {there} is not an allowed transition"):
        journal.transition(job, there, "never")
    assert get_job(journal, job.id) == job
    assert journal.history(job.id) == before


@pytest.mark.parametrize(("here", "there"), LEGAL)
def test_a_transition_from_a_state_that_was_left_is_refused(journal: Journal, here: State, there: State) -> None:
    outdated = add_job_in_state(journal, here)
    elsewhere = journal.transition(outdated, there, "first")
    history = journal.history(outdated.id)
    with pytest.raises(StaleJobError, match=f"job {outdated.id} is no longer {here}"):
        journal.transition(outdated, there, "second", reserve=5)
    assert get_job(journal, outdated.id) == elsewhere
    assert journal.history(outdated.id) == history
    assert journal.credits_since(0) == 0


def test_a_job_begins_queued_with_all_that_intake_knew(journal: Journal, clock: FakeClock) -> None:
    job = add_job(journal, format="jpeg", width=30, height=20, type=1, return_type=2, sync=1)
    assert (job.state, job.source, job.relative) == (State.QUEUED, Path("/inbox/a.jpg"), Path("a.jpg"))
    assert (job.format, job.width, job.height, job.type, job.return_type, job.sync) == ("jpeg", 30, 20, 1, 2, 1)
    assert (job.attempts, job.refusals, job.credits, job.credits_in_doubt) == (0, 0, 0, 0)
    assert (job.problem, job.result, job.output, job.task_id, job.original) == (None, None, None, None, "present")
    assert (job.created_at, job.completed_at) == (clock.now(), None)
    assert journal.history(job.id) == [
        JobEvent(clock.now(), State.QUEUED, "found, complete and within the limits"),
    ]


def test_a_file_at_fault_begins_and_ends_as_rejected(journal: Journal, clock: FakeClock) -> None:
    job = add_job(journal, problem=PROBLEM, original=OriginalStatus.WAITING)
    assert (job.state, job.problem, job.completed_at) == (State.REJECTED, PROBLEM, clock.now())
    assert job.original is OriginalStatus.WAITING
    assert journal.history(job.id) == [JobEvent(clock.now(), State.REJECTED, PROBLEM.message)]


def test_many_jobs_are_added_in_the_order_given(journal: Journal) -> None:
    names = [f"{number}.jpg" for number in range(50)]
    ids = journal.add_jobs([new_job(name) for name in names])
    assert [get_job(journal, job_id).relative.name for job_id in ids] == names
    assert ids == sorted(ids)


def test_a_transition_changes_facts_with_the_state(journal: Journal, clock: FakeClock) -> None:
    job = add_job_in_state(journal, State.FETCHING)
    clock.advance(3)
    job = journal.transition(
        job,
        State.DELIVERING,
        "kept",
        result=RESULT,
        output=Path("/out/b.png"),
        note="a note",
        answer='{"state": 1}',
        attempts=2,
        refusals=3,
        not_before=7.5,
        submitted_at=6.5,
        completed_at=8.5,
        task_id="t-1",
        original=OriginalStatus.MOVED,
        problem=PROBLEM,
        type=1,
        return_type=2,
        sync=1,
    )
    assert (job.result, job.output, job.note, job.answer) == (RESULT, Path("/out/b.png"), "a note", '{"state": 1}')
    assert (job.attempts, job.refusals, job.task_id, job.original) == (2, 3, "t-1", OriginalStatus.MOVED)
    assert (job.not_before, job.submitted_at, job.completed_at, job.problem) == (7.5, 6.5, 8.5, PROBLEM)
    assert (job.type, job.return_type, job.sync) == (1, 2, 1)
    assert journal.history(job.id)[-1].at == clock.now()
    cleared = journal.transition(job, State.DONE, "clear", result=None, output=None, note=None, problem=None)
    assert (cleared.result, cleared.output, cleared.note, cleared.problem) == (None, None, None, None)
    assert cleared.answer == '{"state": 1}'


def test_an_update_keeps_the_state_and_is_history_only_with_a_message(journal: Journal) -> None:
    job = add_job_in_state(journal, State.PENDING)
    before = journal.history(job.id)
    job = journal.update(job, note="asked again")
    assert (job.state, job.note) == (State.PENDING, "asked again")
    assert journal.history(job.id) == before
    job = journal.update(job, "the server was away", not_before=12.0)
    assert journal.history(job.id)[-1] == JobEvent(job.created_at, State.PENDING, "the server was away")
    assert journal.update(job, "a line of history alone") == job
    assert journal.history(job.id)[-1].message == "a line of history alone"


def test_an_update_of_a_job_that_moved_on_is_refused(journal: Journal) -> None:
    outdated = add_job_in_state(journal, State.PENDING)
    journal.transition(outdated, State.FETCHING, "done there")
    with pytest.raises(StaleJobError):
        journal.update(outdated, "too late", note="too late")
    assert get_job(journal, outdated.id).note is None


def test_a_touched_file_gets_a_new_stamp_in_any_state(journal: Journal) -> None:
    job = add_job_in_state(journal, State.DONE)
    journal.update_stamp(job, Stamp(1, 2, 3))
    assert get_job(journal, job.id).stamp == Stamp(1, 2, 3)
    assert get_job(journal, job.id).state is State.DONE


def test_the_settings_of_a_rule_outlive_it(journal: Journal) -> None:
    assert journal.rule_settings("scans") is None
    journal.save_rule_settings("scans", '{"type": 0}')
    journal.save_rule_settings("scans", '{"type": 1}')
    assert journal.rule_settings("scans") == '{"type": 1}'


def test_the_last_report_replaces_the_one_before(journal: Journal) -> None:
    assert journal.daemon_report() is None
    journal.publish_report("one")
    journal.publish_report("two")
    assert journal.daemon_report() == "two"


def test_postponing_a_rule_keeps_a_longer_pause_unless_a_clock_jumped(journal: Journal, clock: FakeClock) -> None:
    pauses = {"short.jpg": 5.0, "long.jpg": 250.0, "wrong.jpg": 10_000.0, "none.jpg": None}
    for name, pause in pauses.items():
        job = add_job(journal, name)
        journal.update(job, not_before=None if pause is None else clock.now() + pause)
    journal.postpone_jobs("scans", State.QUEUED, "the outbox is away", clock.now() + 30)
    remaining = [round((job.not_before or 0) - clock.now()) for job in journal.jobs(oldest_first=True)]
    assert remaining == [30, 250, 30, 30]
    assert journal.next_ready_job("scans", clock.now()) is None


def test_a_postponed_rule_waits_as_a_whole_with_later_jobs(journal: Journal, clock: FakeClock) -> None:
    journal.add_jobs([new_job(f"{number}.jpg") for number in range(writer.MAX_NOTED_JOBS + 2)])
    other = add_job(journal, "c.jpg", rule="other")
    journal.postpone_jobs("scans", State.QUEUED, "the outbox is away", clock.now() + 30)
    add_job(journal, "later.jpg")
    held = add_job(journal, "flood.jpg", flood=True)
    assert journal.next_ready_job("scans", clock.now() + 29) is None
    assert journal.rules_with_ready_jobs(State.QUEUED, clock.now() + 29) == ["other"]
    assert journal.next_ready_job("other", clock.now()) == other
    assert journal.count_blocked(State.QUEUED) == writer.MAX_NOTED_JOBS + 3, "except for jobs held by a flood"
    assert get_job(journal, held.id).note is None
    first = journal.next_ready_job("scans", clock.now() + 31)
    assert first is not None
    assert (first.id, first.note) == (1, "the outbox is away")


def test_a_clock_that_was_ahead_postpones_no_rule_for_long(journal: Journal, clock: FakeClock) -> None:
    add_job(journal)
    journal.postpone_jobs("scans", State.QUEUED, "the outbox is away", clock.now() + 10_000)
    assert journal.next_ready_job("scans", clock.now()) is not None


def test_a_payment_is_synced_even_after_unsynced_writes(journal: Journal) -> None:
    job = add_job(journal)
    refused: list[str | None] = []

    def refuse_once(_action: int, name: str | None, value: str | None, _db: str | None, _by: str | None) -> int:
        if name == "synchronous" and value == "FULL" and not refused:
            refused.append(value)
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK

    journal._connection.set_authorizer(refuse_once)
    with suppress(sqlite3.DatabaseError):
        add_job(journal, "b.jpg")
    with suppress(sqlite3.DatabaseError):
        journal.transition(job, State.SUBMITTING, "sending")
    if get_job(journal, job.id).state is State.QUEUED:
        assert refused, "a payment that was not synced did not happen"
        journal.transition(job, State.SUBMITTING, "sending")
    assert journal._connection.execute("PRAGMA synchronous").fetchone()[0] == 2


@pytest.mark.parametrize("state", [State.SUBMITTING, State.PENDING, State.FETCHING, State.DELIVERING])
def test_jobs_of_a_content_in_flight_wait_whether_earlier_or_later(
    journal: Journal, clock: FakeClock, state: State
) -> None:
    failed = add_job_in_state(journal, State.FAILED)
    copy = add_job(journal)
    assert journal.next_ready_job("scans", clock.now()) == copy
    journal.transition(failed, State.QUEUED, "retry")
    assert journal.next_ready_job("scans", clock.now(), [copy.id]) is None, "the connection is being made"
    for step in path_to_state(state):
        copy = journal.transition(copy, step, "on its way")
        assert journal.next_ready_job("scans", clock.now()) is None
    journal.transition(copy, State.HELD, "a person decides")
    assert journal.next_ready_job("scans", clock.now()) == get_job(journal, failed.id)


def test_postponed_jobs_go_on_after_one_success_or_when_pauses_end(journal: Journal, clock: FakeClock) -> None:
    journal.add_jobs([new_job(f"{number}.jpg") for number in range(writer.MAX_NOTED_JOBS + 2)])
    untold = writer.MAX_NOTED_JOBS + 1
    for end in (journal.end_pauses, lambda: journal.transition(get_job(journal, 1), State.SUBMITTING, "sending")):
        journal.postpone_jobs("scans", State.QUEUED, "the outbox is away", clock.now() + 30)
        assert journal.next_ready_job("scans", clock.now()) is None
        end()
        ready = journal.next_ready_job("scans", clock.now())
        assert ready is not None
        assert ready.id == untold
