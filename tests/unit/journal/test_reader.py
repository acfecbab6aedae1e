"""Reading: the queries of the steps and commands, and values that are read as they were written."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from picwish_watchd.job import UNFINISHED, ErrorCode, OriginalStatus, Problem, SourceKind, Stamp, State
from picwish_watchd.journal import queue_reader
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.journal.rows import RunningTask
from picwish_watchd.journal.writer import Journal
from tests.support.fake_clock import FakeClock
from tests.unit.journal.job_factory import STAMP, add_job, add_job_in_state, get_job, new_job

ODD_NAMES = [b"caf\xe9.jpg", b"\xff\xfe.jpg", b"new\nline.jpg", "日本語.jpg".encode(), b'it\'s "so".jpg', b"%41?#.jpg"]


@pytest.mark.parametrize("raw", ODD_NAMES)
def test_any_name_that_a_file_system_has_comes_back_as_it_went_in(journal: Journal, raw: bytes) -> None:
    name = os.fsdecode(raw)
    job = add_job(journal, name)
    job = journal.update(job, output=Path("/out") / name)
    assert os.fsencode(job.source) == b"/inbox/" + raw
    assert os.fsencode(job.relative) == raw
    assert job.output == Path("/out") / name
    assert journal.find_latest_job(Path("/inbox") / name) == job
    assert journal.find_output_owner(Path("/out") / name) == job
    assert list(journal.known_files("scans")) == [(name, STAMP)]


def test_a_message_may_quote_a_name_that_is_not_utf8(journal: Journal) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    text = f"{name} ends in the middle"
    escaped = r"caf\udce9.jpg ends in the middle"
    refused = add_job(journal, name, problem=Problem(ErrorCode.TRUNCATED, text))
    assert refused.problem == Problem(ErrorCode.TRUNCATED, escaped)
    assert journal.history(refused.id)[-1].message == escaped
    held = journal.transition(add_job(journal), State.HELD, text, note=text, problem=Problem(ErrorCode.TRUNCATED, text))
    assert (held.note, held.problem) == (escaped, Problem(ErrorCode.TRUNCATED, escaped))
    assert journal.history(held.id)[-1].message == escaped


@pytest.mark.parametrize(
    "stamp",
    [
        Stamp(2**63 - 1, 0, 0),
        Stamp(2**63, 1, 1),
        Stamp(2**64 - 1, 2**40, -1),
        # 1901, the earliest time of ext4.
        Stamp(1, 1, -2_147_483_648 * 10**9),
        # 2262.
        Stamp(1, 1, 2**63),
        # 2446, the latest time of ext4.
        Stamp(1, 1, 15_032_385_535 * 10**9),
    ],
)
def test_any_stamp_of_a_file_comes_back_as_it_went_in(journal: Journal, stamp: Stamp) -> None:
    job = add_job(journal, stamp=stamp)
    assert job.stamp == stamp
    assert dict(journal.known_files("scans")) == {"a.jpg": stamp}
    journal.update_stamp(job, Stamp(9, 9, 9))
    journal.update_stamp(job, stamp)
    assert get_job(journal, job.id).stamp == stamp


def test_a_link_comes_back_as_a_link(journal: Journal) -> None:
    job = add_job(journal, "a.url", kind=SourceKind.LINK, url="https://example.com/a.jpg")
    assert (job.kind, job.url) == (SourceKind.LINK, "https://example.com/a.jpg")


def test_the_oldest_ready_job_of_the_rule_is_next(journal: Journal, clock: FakeClock) -> None:
    first, second = add_job(journal, "a.jpg"), add_job(journal, "b.jpg")
    add_job(journal, "c.jpg", rule="other")
    assert journal.next_ready_job("scans", clock.now()) == first
    assert journal.next_ready_job("scans", clock.now(), [first.id]) == second
    assert journal.next_ready_job("scans", clock.now(), [first.id, second.id]) is None
    assert journal.next_ready_job("nobody", clock.now()) is None
    assert journal.next_ready_job("scans", clock.now(), state=State.DELIVERING) is None


def test_a_job_whose_pause_is_not_over_is_not_ready(journal: Journal, clock: FakeClock) -> None:
    journal.update(add_job(journal), not_before=clock.now() + 5)
    assert journal.next_ready_job("scans", clock.now() + 4.9) is None
    assert journal.rules_with_ready_jobs(State.QUEUED, clock.now() + 4.9) == []
    assert journal.next_ready_job("scans", clock.now() + 5) is not None
    assert journal.rules_with_ready_jobs(State.QUEUED, clock.now() + 5) == ["scans"]


def test_rules_are_named_once_by_what_they_have_to_do(journal: Journal, clock: FakeClock) -> None:
    for name in ("a.jpg", "b.jpg"):
        add_job_in_state(journal, State.DELIVERING, name)
    add_job_in_state(journal, State.DELIVERING, "c.jpg", rule="gone")
    add_job(journal, "d.jpg", rule="new")
    assert sorted(journal.rules_with_ready_jobs(State.DELIVERING, clock.now())) == ["gone", "scans"]
    assert journal.rules_with_ready_jobs(State.PENDING, clock.now()) == []


def test_originals_to_dispose_of_are_found_oldest_first(journal: Journal, clock: FakeClock) -> None:
    first = journal.update(add_job_in_state(journal, State.DONE, "a.jpg"), original=OriginalStatus.WAITING)
    second = journal.update(add_job_in_state(journal, State.DONE, "b.jpg"), original=OriginalStatus.WAITING)
    add_job(journal, "c.jpg", rule="other")
    assert journal.rules_with_waiting_originals(clock.now()) == ["scans"]
    assert journal.next_waiting_original("scans", clock.now()) == first
    assert journal.count_waiting_originals() == 2
    journal.update(first, note="it is locked", not_before=clock.now() + 9)
    assert journal.next_waiting_original("scans", clock.now()) == second
    assert journal.count_waiting_originals() == 1
    journal.update(second, original=OriginalStatus.MOVED)
    assert journal.next_waiting_original("scans", clock.now()) is None
    assert journal.rules_with_waiting_originals(clock.now() + 9) == ["scans"]


def test_originals_waiting_for_one_folder_are_postponed_together(journal: Journal, clock: FakeClock) -> None:
    first, second = (
        journal.update(add_job_in_state(journal, State.DONE, name), original=OriginalStatus.WAITING)
        for name in ("a.jpg", "b.jpg")
    )
    bad = journal.update(add_job_in_state(journal, State.FAILED, "c.jpg"), original=OriginalStatus.WAITING)
    journal.postpone_originals(second, clock.now() + 60)
    assert journal.next_waiting_original("scans", clock.now()) == bad
    assert journal.count_waiting_originals(clock.now()) == 1
    journal.postpone_originals(bad, clock.now() + 30)
    assert journal.next_waiting_original("scans", clock.now()) is None
    assert journal.rules_with_waiting_originals(clock.now()) == []
    assert journal.count_waiting_originals(clock.now()) == 0
    clock.advance(45)
    assert journal.next_waiting_original("scans", clock.now()) == bad
    journal.end_pauses()
    assert journal.next_waiting_original("scans", clock.now()) == first
    assert journal.count_waiting_originals(clock.now()) == 3


def test_running_tasks_come_in_the_order_of_their_submission(journal: Journal) -> None:
    late = journal.update(add_job_in_state(journal, State.PENDING, "a.jpg"), submitted_at=20.0, not_before=25.0)
    early = journal.update(add_job_in_state(journal, State.PENDING, "b.jpg"), submitted_at=10.0, type=1)
    add_job_in_state(journal, State.FETCHING, "c.jpg")
    assert journal.running_tasks() == [
        RunningTask(early.id, "scans", 1, 10.0, 0.0),
        RunningTask(late.id, "scans", 0, 20.0, 25.0),
    ]
    assert journal.running_tasks(excluding={early.id}) == [RunningTask(late.id, "scans", 0, 20.0, 25.0)]


def test_more_running_tasks_than_one_page_are_all_returned(journal: Journal) -> None:
    ids = [add_job_in_state(journal, State.PENDING, f"{number}.jpg").id for number in range(3)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queue_reader, "PAGE_SIZE", 2)
        assert [task.id for task in journal.running_tasks()] == ids


def test_counts_are_by_rule_and_state_and_sums_by_what_is_left_to_do(journal: Journal) -> None:
    for number, state in enumerate(State):
        add_job_in_state(journal, state, f"{number}.jpg")
    add_job_in_state(journal, State.PENDING, "z.jpg", rule="other")
    assert journal.counts_by_rule() == {"scans": dict.fromkeys(State, 1), "other": {State.PENDING: 1}}
    assert journal.count_unfinished() == len(UNFINISHED) + 1
    assert journal.count_at_picwish() == 4


def test_the_newest_job_of_a_file_and_of_an_output_is_found(journal: Journal) -> None:
    add_job(journal)
    second = journal.update(add_job(journal), output=Path("/out/a.png"))
    third = journal.update(add_job(journal, "b.jpg"), output=Path("/out/a.png"))
    assert journal.find_latest_job(Path("/inbox/a.jpg")) == second
    assert journal.find_output_owner(Path("/out/a.png")) == third
    assert journal.find_latest_job(Path("/inbox/c.jpg")) is None
    assert journal.find_output_owner(Path("/out/c.png")) is None


def test_the_newest_job_that_follows_a_task_is_found(journal: Journal) -> None:
    journal.update(add_job(journal), task_id="t-1")
    second = journal.update(add_job(journal), task_id="t-1")
    assert journal.find_task_owner("t-1") == second
    assert journal.find_task_owner("t-2") is None


def test_postponed_jobs_count_as_tried_in_vain(journal: Journal) -> None:
    journal.update(add_job(journal), note="no room in the outbox", not_before=5.0)
    journal.update(add_job(journal), not_before=5.0)
    journal.update(add_job(journal), note="only a remark")
    assert journal.count_blocked(State.QUEUED) == 1
    assert journal.count_blocked(State.DELIVERING) == 0


def test_known_files_are_those_possibly_in_the_inbox_newest_stamp_last(journal: Journal) -> None:
    journal.update(add_job(journal, "moved.jpg"), original=OriginalStatus.MOVED)
    journal.update(add_job(journal, "waits.jpg"), original=OriginalStatus.WAITING)
    add_job(journal, "a.jpg")
    add_job(journal, "a.jpg", stamp=Stamp(2, 2, 2))
    add_job(journal, "b.jpg", rule="other")
    assert list(journal.known_files("scans")) == [("waits.jpg", STAMP), ("a.jpg", STAMP), ("a.jpg", Stamp(2, 2, 2))]


def test_only_jobs_that_moved_since_an_event_are_changed(journal: Journal) -> None:
    assert journal.last_event_id() == 0
    old, job = add_job_in_state(journal, State.HELD, "old.jpg"), add_job_in_state(journal, State.PENDING, "a.jpg")
    before = journal.last_event_id()
    assert journal.jobs_changed_since(before, list(State)) == []
    assert journal.counts_since(before) == {State.PENDING: 1}
    job = journal.transition(job, State.HELD, "gone")
    assert journal.jobs_changed_since(before, [State.HELD]) == [job]
    assert journal.jobs_changed_since(before, [State.DONE]) == []
    assert journal.jobs_changed_since(0, [State.HELD, State.DONE]) == [old, job]
    assert journal.counts_since(before) == {State.HELD: 1}
    journal.update(old, "its original was looked at")
    assert journal.jobs_changed_since(before, [State.HELD]) == [job]


def test_counts_since_an_event_follow_changes_of_all_processes(journal: Journal) -> None:
    add_job_in_state(journal, State.DONE, "old.jpg")
    before = journal.last_event_id()
    first, second = add_job_in_state(journal, State.PENDING, "a.jpg"), add_job_in_state(journal, State.HELD, "b.jpg")
    assert journal.counts_since(before) == {State.PENDING: 1, State.HELD: 1}
    beside = Journal.open_existing(journal.path, FakeClock())
    beside.transition(second, State.QUEUED, "retry")
    beside.close()
    assert journal.counts_since(before) == {State.PENDING: 1, State.QUEUED: 1}
    journal.transition(first, State.HELD, "gone")
    assert journal.counts_since(before) == {State.HELD: 1, State.QUEUED: 1}
    assert journal.counts_since(0) == {State.DONE: 1, State.HELD: 1, State.QUEUED: 1}
    assert journal.counts_since(before) == {State.HELD: 1, State.QUEUED: 1}
    assert journal.counts_since(journal.last_event_id()) == {State.QUEUED: 1}


def test_jobs_are_listed_newest_first_by_state_and_rule(journal: Journal) -> None:
    ids = journal.add_jobs([new_job(f"{n}.jpg", rule="odd" if n % 2 else "even") for n in range(6)])
    journal.transition(get_job(journal, ids[0]), State.HELD, "held")
    assert [job.id for job in journal.jobs()] == ids[::-1]
    assert [job.id for job in journal.jobs(oldest_first=True, limit=2)] == ids[:2]
    assert [job.id for job in journal.jobs(rule="odd")] == [ids[5], ids[3], ids[1]]
    assert [job.id for job in journal.jobs(states=[State.HELD])] == [ids[0]]
    assert [job.id for job in journal.jobs(states=[State.QUEUED, State.HELD], rule="even", after=ids[1])] == [
        ids[4],
        ids[2],
    ]


def test_an_unknown_job_is_none_and_has_no_history(journal: Journal) -> None:
    assert journal.get(99) is None
    assert journal.history(99) == []


def test_task_seconds_are_by_type_newest_first(journal: Journal) -> None:
    for seconds, model in ((1.0, 0), (2.0, 1), (3.0, 0), (4.0, 0)):
        journal.update(add_job(journal), task_seconds=seconds, type=model)
    assert journal.recent_task_durations(0, 2) == [4.0, 3.0]
    assert journal.recent_task_durations(1, 9) == [2.0]


def test_a_reader_sees_what_a_writer_committed_while_both_are_open(journal: Journal, journal_path: Path) -> None:
    reader = JournalReader.open(journal_path)
    try:
        job = add_job(journal)
        assert reader.get(job.id) == job
        version = reader.data_version()
        journal.update(job, note="news")
        assert reader.data_version() != version
        assert get_job(journal, job.id).note == "news"
        reader.check_integrity()
    finally:
        reader.close()


@pytest.mark.parametrize("state", [State.QUEUED, State.DELIVERING])
def test_waiting_duplicates_are_not_counted_as_postponed(journal: Journal, clock: FakeClock, state: State) -> None:
    add_job_in_state(journal, state)
    copies = [add_job(journal, rule=rule) for rule in ("scans", "scans", "other")]
    add_job(journal, "b.jpg")
    assert journal.count_waiting_duplicates() == 2
    journal.update(copies[0], note="it cannot be read", not_before=clock.now() + 30)
    assert journal.count_waiting_duplicates() == 1
    journal.postpone_jobs("scans", State.QUEUED, "the outbox is away", clock.now() + 30)
    assert journal.count_waiting_duplicates() == 0, "all of them are tried without success"


QUESTIONS: dict[str, Callable[[Journal, float], object]] = {
    "the rules with queued jobs": lambda journal, now: journal.rules_with_ready_jobs(State.QUEUED, now),
    "the next job of another rule": lambda journal, now: journal.next_ready_job("other", now),
    "the next job beside a flood": lambda journal, now: journal.next_ready_job("flooded", now),
    "how many came lately": lambda journal, now: journal.count_arrivals("scans", now - 600, 100),
    "what waits in vain": lambda journal, now: journal.count_blocked(State.QUEUED),
    "a rule that is put off": lambda journal, now: journal.postpone_jobs("other", State.QUEUED, "away", now + 30),
    "a start": lambda journal, _now: journal.clear_pauses(),
}


def test_the_loops_queries_cost_the_same_beside_any_number_of_jobs(journal: Journal, clock: FakeClock) -> None:
    """Counted in steps of SQLite's virtual machine: reading every job would take tens of thousands."""
    for rule, flood in (("scans", False), ("flooded", True)):
        journal.add_jobs([new_job(f"{rule}{number}.jpg", rule, flood=flood) for number in range(4_000)])
    add_job(journal, "a.jpg", rule="other")
    steps = [0]

    def step() -> None:
        steps[0] += 10

    journal._connection.set_progress_handler(step, 10)
    spent = {}
    for name, ask in QUESTIONS.items():
        steps[0] = 0
        ask(journal, clock.now())
        spent[name] = steps[0]
    journal._connection.set_progress_handler(None, 0)
    assert {name: number for name, number in spent.items() if number > 2_000} == {}
