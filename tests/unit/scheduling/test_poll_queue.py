"""The poll queue: of the tasks at PicWish the one that is due first is queried first, and never twice at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picwish_watchd.scheduling.poll_queue import EXPIRING_AFTER, PollQueue, TrackedTask


def track_task(
    agenda: PollQueue, number: int, due: float, born: float = 0.0, *, rule: str = "scans", inherited: bool = False
) -> TrackedTask:
    task = TrackedTask(number, 0, rule, born_at=born, is_inherited=inherited)
    agenda.track(task, due)
    return task


def even_probability(_task: TrackedTask) -> float:
    return 0.5


def test_an_empty_queue_has_nothing_to_wait_for() -> None:
    agenda = PollQueue()
    assert agenda.seconds_until_due(5.0) is None
    assert agenda.pop(5.0, even_probability) is None
    assert not agenda.has_expiring_tasks(5.0)
    assert agenda.get(1) is None
    agenda.drop(1)


def test_the_earliest_task_is_polled_once_it_is_due() -> None:
    agenda = PollQueue()
    late, early = track_task(agenda, 1, 20.0), track_task(agenda, 2, 10.0)
    assert agenda.seconds_until_due(4.0) == 6.0
    assert agenda.pop(9.9, even_probability) is None
    assert agenda.pop(10.0, even_probability) is early
    assert early.due_at is None
    assert agenda.seconds_until_due(12.0) == 8.0
    assert agenda.seconds_until_due(25.0) == 0.0
    assert agenda.pop(25.0, even_probability) is late


def test_a_task_that_is_being_asked_for_is_not_due_until_it_is_scheduled_again() -> None:
    agenda = PollQueue()
    task = track_task(agenda, 1, 10.0)
    assert agenda.pop(10.0, even_probability) is task
    assert agenda.pop(99.0, even_probability) is None
    assert 1 in agenda
    agenda.schedule(task, 10.0)
    assert agenda.pop(99.0, even_probability) is task
    assert agenda.pop(99.0, even_probability) is None


def test_a_job_with_another_task_leaves_nothing_of_the_last_one() -> None:
    agenda = PollQueue()
    track_task(agenda, 1, 5.0, inherited=True)
    assert agenda.seconds_until_due(10.0) == 0.0
    task = track_task(agenda, 1, 12.0, born=8.0)
    assert agenda.seconds_until_due(10.0) == 2.0
    assert agenda.pop(12.0, even_probability) is task
    agenda.drop(1)
    assert agenda.seconds_until_due(30.0) is None
    assert agenda.pop(30.0, even_probability) is None
    assert not agenda.has_expiring_tasks(9999.0)


def test_a_task_scheduled_anew_is_due_at_its_last_time_only() -> None:
    agenda = PollQueue()
    task = track_task(agenda, 1, 10.0)
    agenda.schedule(task, 5.0)
    agenda.schedule(task, 30.0)
    assert agenda.pop(29.0, even_probability) is None
    assert agenda.pop(30.0, even_probability) is task
    assert agenda.pop(99.0, even_probability) is None


def test_a_dropped_task_is_neither_due_nor_known() -> None:
    agenda = PollQueue()
    track_task(agenda, 1, 10.0)
    agenda.drop(1)
    assert agenda.pop(99.0, even_probability) is None
    assert 1 not in agenda
    assert agenda.get(1) is None


def test_the_next_task_is_expiring_after_three_quarters_of_its_hour() -> None:
    agenda = PollQueue()
    track_task(agenda, 1, 10.0, born=100.0)
    assert not agenda.has_expiring_tasks(100.0 + EXPIRING_AFTER)
    assert agenda.has_expiring_tasks(100.1 + EXPIRING_AFTER)
    assert EXPIRING_AFTER < 3600


def test_of_those_that_are_due_the_likeliest_is_taken() -> None:
    agenda = PollQueue()
    for number in range(1, 6):
        track_task(agenda, number, due=10.0 * number)
    order = []
    for now in (45.0, 45.0, 99.0, 99.0, 99.0):
        task = agenda.pop(now, lambda task: task.id % 3 + task.id / 10)
        order.append(None if task is None else task.id)
    assert order == [2, 4, 5, 1, 3]


def test_a_task_whose_hour_is_running_out_goes_before_the_likeliest() -> None:
    agenda = PollQueue()
    track_task(agenda, 1, due=5000.0, born=4990.0)
    old = track_task(agenda, 2, due=5001.0, born=0.0)
    assert agenda.pop(5002.0, lambda task: 1.0 if task.id == 1 else 0.0) is old


def test_a_failed_poll_does_not_fall_behind_younger_due_tasks() -> None:
    agenda = PollQueue()
    for number in range(2, 100):
        track_task(agenda, number, due=1010.0, born=1000.0)
    old = track_task(agenda, 1, due=10.0, born=0.0)
    now = EXPIRING_AFTER + 1
    assert agenda.pop(now, even_probability) is old
    # The response was a 500.
    agenda.schedule(old, now + 2)
    assert agenda.pop(now + 1, even_probability) is not old
    assert agenda.has_expiring_tasks(now + 2)
    assert agenda.pop(now + 2, even_probability) is old


def test_a_task_that_was_seen_unfinished_has_an_hour_from_then_on() -> None:
    agenda = PollQueue()
    task = track_task(agenda, 1, due=10.0)
    assert agenda.pop(3000.0, even_probability) is task
    task.last_open_age = 3000.0
    agenda.schedule(task, 3100.0)
    assert not agenda.has_expiring_tasks(3200.0)
    assert agenda.has_expiring_tasks(3001.0 + EXPIRING_AFTER)


def count_late_polls(ages: list[float]) -> int:
    """Return how many tasks of an earlier run, ``age`` seconds old, are queried too late."""
    agenda = PollQueue()
    for number, age in enumerate(ages):
        track_task(agenda, number, due=10_000.0, born=10_000.0 - age, inherited=True)
    now, lost = 10_000.0, 0
    while (task := agenda.pop(now, even_probability)) is not None:
        lost += now - task.born_at > 3600
        agenda.drop(task.id)
        now += 1.025 / 2
    return lost


def test_after_an_outage_5000_tasks_are_polled_in_time_if_possible() -> None:
    sent = [1.025 / 2 * number for number in range(5000)]
    assert count_late_polls([600.0 + age for age in sent]) == 0
    ages = [3000.0 + age for age in sent]
    too_late = sum(age > 3600 for age in ages)
    in_time = len(ages) - too_late
    assert count_late_polls(ages) <= too_late + in_time * 0.15, "those that are too late make few others too late"


def test_a_higher_priority_task_is_polled_first_once_it_is_probably_done() -> None:
    agenda = PollQueue()
    for number in range(1, 100):
        track_task(agenda, number, due=1.0)
    urgent = track_task(agenda, 100, due=50.0, rule="urgent")

    def rank(rule: str) -> int:
        return 5 if rule == "urgent" else 0

    assert agenda.find_priority_task(49.0, even_probability, rank) is not None, "of the others one"
    assert agenda.find_priority_task(50.0, even_probability, rank) == (5, urgent)
    assert agenda.find_priority_task(50.0, lambda task: 0.4 if task is urgent else 1.0, rank) is None
    assert agenda.pop(50.0, even_probability, prefer=urgent) is urgent
    assert agenda.find_priority_task(0.5, even_probability, rank) is not None
    assert PollQueue().find_priority_task(50.0, even_probability, rank) is None


@pytest.mark.untraced
@given(st.lists(st.tuples(st.integers(1, 8), st.floats(0, 100)), max_size=60), st.sets(st.integers(1, 8)))
def test_tasks_come_in_the_order_of_their_last_times_and_each_once(
    plan: list[tuple[int, float]], dropped: set[int]
) -> None:
    agenda = PollQueue()
    for number, due in plan:
        task = agenda.get(number)
        if task is None:
            track_task(agenda, number, due)
        else:
            agenda.schedule(task, due)
    for number in dropped:
        agenda.drop(number)
    left = {number: due for number, due in plan if number not in dropped}
    taken = []
    while (task := agenda.pop(100.0, even_probability)) is not None:
        taken.append(task.id)
    assert sorted(taken) == sorted(left)
    assert [left[number] for number in taken] == sorted(left.values())
