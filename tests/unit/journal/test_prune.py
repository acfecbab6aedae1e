"""Pruning: what may be forgotten is removed, and nothing that prevents a second charge."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picwish_watchd.job import ErrorCode as Code
from picwish_watchd.job import Job, OriginalStatus, Problem, Result, State
from picwish_watchd.journal.prune import PRUNE_BATCH_SIZE
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.journal.writer import ChargeState, Journal
from tests.support.fake_clock import FakeClock
from tests.unit.journal.job_factory import add_job, get_job

DAY = 86_400.0
RESULT = Result(format="jpeg", width=2, height=2, size=9, sha256="f" * 64)


def add_done_job(journal: Journal, name: str = "a.jpg", **facts: Any) -> Job:
    """Add a job that was paid for and delivered."""
    job = journal.transition(add_job(journal, name, **facts), State.SUBMITTING, "sending", reserve=5)
    job = journal.transition(job, State.PENDING, "took it", task_id=f"task-{job.id}", answer='{"status": 200}')
    job = journal.transition(job, State.FETCHING, "succeeded", charge=ChargeState.SPENT)
    job = journal.transition(job, State.DELIVERING, "in the spool", result=RESULT, output=Path("/outbox") / name)
    return journal.transition(job, State.DONE, "it was delivered", completed_at=journal._clock.now())


def prune_all(journal: Journal, before: float) -> int:
    """Prune all slices and return the number of removed events."""
    upto, removed = 0, 0
    while True:
        piece = journal.prune_batch(before, upto)
        upto, removed = piece.last_event_id, removed + piece.removed_count
        if piece.is_last:
            return removed


def test_only_the_history_of_an_old_job_is_pruned(journal: Journal, clock: FakeClock) -> None:
    job = add_done_job(journal)
    clock.advance(400 * DAY)
    assert prune_all(journal, clock.now() - 399 * DAY) == 5
    assert get_job(journal, job.id) == replace(job, answer=None)
    assert [event.state for event in journal.history(job.id)] == ["done"]
    assert [(row.credits, row.state) for row in journal.iter_spending()] == [(5, "spent")]


def test_younger_jobs_keep_their_history(journal: Journal, clock: FakeClock) -> None:
    old = add_done_job(journal, "old.jpg")
    clock.advance(10 * DAY)
    young = add_done_job(journal, "young.jpg")
    prune_all(journal, clock.now() - DAY)
    assert len(journal.history(old.id)) == 1
    assert len(journal.history(young.id)) == 6
    assert get_job(journal, young.id) == young


@pytest.mark.parametrize("state", [state for state in State if state not in ("done", "rejected", "failed")])
def test_unfinished_and_held_jobs_keep_their_history(journal: Journal, clock: FakeClock, state: State) -> None:
    job = journal.transition(add_job(journal), State.SUBMITTING, "sending", reserve=5)
    if state is State.QUEUED:
        job = journal.transition(job, State.QUEUED, "429", charge=ChargeState.RELEASED)
    for step in (State.PENDING, State.FETCHING, State.DELIVERING):
        if state in (State.HELD, State.SUBMITTING, State.QUEUED) or job.state is state:
            break
        job = journal.transition(job, step, "on", answer="{}")
    if state is State.HELD:
        job = journal.transition(job, State.HELD, "in doubt", charge=ChargeState.DOUBTFUL, completed_at=clock.now())
    lines = journal.history(job.id)
    clock.advance(1000 * DAY)
    assert prune_all(journal, clock.now()) == 0
    assert get_job(journal, job.id) == job
    assert journal.history(job.id) == lines


def test_a_job_whose_original_is_still_to_be_moved_keeps_its_history(journal: Journal, clock: FakeClock) -> None:
    job = journal.update(add_done_job(journal), original=OriginalStatus.WAITING)
    clock.advance(1000 * DAY)
    assert prune_all(journal, clock.now()) == 0
    assert get_job(journal, job.id) == job


def test_an_original_that_was_moved_is_found_by_its_new_place_for_ever(journal: Journal, clock: FakeClock) -> None:
    job = journal.update(
        add_done_job(journal), "the original was moved to /archive/a.jpg", original=OriginalStatus.MOVED
    )
    job = journal.update(job, "something that came later", note=None)
    clock.advance(1000 * DAY)
    prune_all(journal, clock.now())
    match = journal.find_job_by_message("the original was moved to /archive/a.jpg")
    assert match is not None
    assert match.id == job.id


def test_the_newest_event_is_never_pruned_so_loss_is_still_detected(
    journal: Journal, journal_path: Path, clock: FakeClock
) -> None:
    add_done_job(journal)
    last = journal.last_event_id()
    clock.advance(1000 * DAY)
    prune_all(journal, clock.now())
    assert journal.last_event_id() == last
    JournalReader.open(journal_path).close()
    add_job(journal, "next.jpg")
    assert journal.last_event_id() == last + 1


def test_a_failed_job_can_be_retried_after_its_history_has_gone(journal: Journal, clock: FakeClock) -> None:
    job = journal.transition(add_job(journal), State.SUBMITTING, "sending", reserve=5)
    problem = Problem(Code.TASK_FAILED, "PicWish could not do it")
    journal.transition(job, State.FAILED, "no", charge=ChargeState.RELEASED, problem=problem, completed_at=clock.now())
    clock.advance(1000 * DAY)
    assert prune_all(journal, clock.now()) == 2
    again = journal.transition(get_job(journal, job.id), State.QUEUED, "retry", problem=None, completed_at=None)
    clock.advance(1000 * DAY)
    assert prune_all(journal, clock.now()) == 0, "the job is in progress again"
    assert [event.state for event in journal.history(again.id)] == ["failed", "queued"]


def test_pruning_works_in_small_batches_that_reach_everything(journal: Journal, clock: FakeClock) -> None:
    held = journal.transition(add_job(journal, "held.jpg"), State.HELD, "waits for a person")
    jobs = [add_done_job(journal, f"{number}.jpg") for number in range(100)]
    clock.advance(1000 * DAY)
    pieces = [journal.prune_batch(clock.now())]
    while not pieces[-1].is_last:
        pieces.append(journal.prune_batch(clock.now(), pieces[-1].last_event_id))
    assert all(piece.removed_count <= PRUNE_BATCH_SIZE for piece in pieces)
    assert sum(piece.removed_count for piece in pieces) == 500
    assert all(len(journal.history(job.id)) == 1 for job in jobs)
    assert len(journal.history(held.id)) == 2
    assert prune_all(journal, clock.now()) == 0


def test_a_batch_that_finds_nothing_writes_nothing(journal: Journal, journal_path: Path) -> None:
    add_done_job(journal)
    before = os.path.getsize(f"{journal_path}-wal")
    assert prune_all(journal, 1.0) == 0
    assert os.path.getsize(f"{journal_path}-wal") == before


Names = st.sampled_from(["a.jpg", "b.jpg", "c.jpg"])
JobActions = st.lists(
    st.one_of(
        st.tuples(st.just("done"), Names, st.sampled_from(list("xyz"))),
        st.tuples(st.just("copy"), Names, st.sampled_from(list("xyz"))),
        st.tuples(st.just("held"), Names, st.sampled_from(list("xyz"))),
        st.tuples(st.just("failed"), Names, st.sampled_from(list("xyz"))),
        st.tuples(st.just("own"), Names, st.sampled_from(list("xyz"))),
        st.tuples(st.just("time"), st.sampled_from([0.5, 40.0, 500.0])),
        st.tuples(st.just("prune"), st.sampled_from([32.0, 400.0])),
    ),
    max_size=14,
)


@pytest.mark.untraced
@given(acts=JobActions)
@settings(max_examples=40, deadline=None)
def test_pruning_changes_nothing_that_a_submission_depends_on(acts: list[tuple[Any, ...]]) -> None:
    clock = FakeClock()
    with memory_journal(clock) as journal:
        for act in acts:
            if act[0] == "time":
                clock.advance(act[1] * DAY)
            elif act[0] == "prune":
                before, newest = query_everything(journal), journal.last_event_id()
                prune_all(journal, clock.now() - act[1] * DAY)
                assert query_everything(journal) == before
                assert journal.last_event_id() == newest
            else:
                add_ended_job(journal, clock, *act)
        before = query_everything(journal)
        prune_all(journal, clock.now() + DAY)
        assert query_everything(journal) == before


@contextmanager
def memory_journal(clock: FakeClock) -> Iterator[Journal]:
    """Yield a new journal in memory for each example."""
    parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=parent, prefix="journal-") as folder:
        journal = Journal.open_for_writing(Path(folder) / "state" / "journal.db", clock)
        yield journal
        journal.close()


def add_ended_job(journal: Journal, clock: FakeClock, act: str, name: str, content: str) -> None:
    """Add a job and move it to its final state."""
    clock.advance(60)
    sha = content * 64
    if act == "own":
        add_job(journal, name, sha256=sha, result_of=Path("/outbox") / name)
    elif act == "done":
        add_done_job(journal, name, sha256=sha)
    else:
        job = journal.transition(add_job(journal, name, sha256=sha), State.SUBMITTING, "sending", reserve=5)
        if act == "copy":
            job = journal.transition(job, State.QUEUED, "429", charge=ChargeState.RELEASED)
            journal.transition(job, State.DONE, "from the first one's result", completed_at=clock.now())
        else:
            charge, to = (ChargeState.DOUBTFUL, State.HELD) if act == "held" else (ChargeState.RELEASED, State.FAILED)
            problem = Problem(Code.SUBMIT_OUTCOME_UNKNOWN, "nobody knows")
            journal.transition(job, to, "it ended", charge=charge, problem=problem, completed_at=clock.now())


def query_everything(journal: Journal) -> list[object]:
    """Return the answer of every query that decides about a charge: intake, copies, deliveries, budgets, commands."""

    def ids(jobs: list[Job]) -> list[int]:
        return [job.id for job in jobs]

    def bare(job: Job | None) -> Job | None:
        return job and replace(job, answer=None)

    jobs = [replace(job, answer=None) for job in journal.jobs()]
    return [
        jobs,
        list(journal.known_files("scans")),
        list(journal.iter_spending()),
        [journal.credits_since(moment) for moment in (0.0, journal._clock.now() - 31 * DAY)],
        [ids(journal.find_jobs_by_content(each * 64, "scans", 0)) for each in "xyz"],
        [ids(journal.find_jobs_by_content(each * 64, "scans", 0, settled=True)) for each in "xyz"],
        ids(journal.find_jobs_by_result(RESULT.sha256)),
        journal.result_outputs([RESULT.sha256]),
        [bare(journal.find_output_owner(Path("/outbox") / job.relative)) for job in jobs],
        [bare(journal.find_task_owner(job.task_id or "")) for job in jobs],
        [bare(journal.find_latest_job(job.source)) for job in jobs],
        journal.counts_by_rule(),
        [journal.history(job.id)[-1] for job in jobs],
    ]
