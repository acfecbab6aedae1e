"""The poll queue: of the tasks at PicWish the one that is due first is queried first, and never twice at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picwish_watchd.scheduling.poll_queue import EXPIRING_AFTER, PollQueue, TrackedTask


def track_task(
    poll_queue: PollQueue, number: int, due: float, born: float = 0.0, *, rule: str = "scans", inherited: bool = False
) -> TrackedTask:
    task = TrackedTask(number, 0, rule, born_at=born, is_inherited=inherited)
    poll_queue.track(task, due)
    return task


def even_probability(_task: TrackedTask) -> float:
    return 0.5


def test_an_empty_queue_has_nothing_to_wait_for() -> None:
    poll_queue = PollQueue()
    assert poll_queue.seconds_until_due(5.0) is None
    assert poll_queue.pop(5.0, even_probability) is None
    assert not poll_queue.has_expiring_tasks(5.0)
    assert poll_queue.get(1) is None
    poll_queue.drop(1)


def test_the_earliest_task_is_polled_once_it_is_due() -> None:
    poll_queue = PollQueue()
    late, early = track_task(poll_queue, 1, 20.0), track_task(poll_queue, 2, 10.0)
    assert poll_queue.seconds_until_due(4.0) == 6.0
    assert poll_queue.pop(9.9, even_probability) is None
    assert poll_queue.pop(10.0, even_probability) is early
    assert early.due_at is None
    assert poll_queue.seconds_until_due(12.0) == 8.0
    assert poll_queue.seconds_until_due(25.0) == 0.0
    assert poll_queue.pop(25.0, even_probability) is late


def test_a_task_that_is_being_queried_is_not_due_until_it_is_scheduled_again() -> None:
    poll_queue = PollQueue()
    task = track_task(poll_queue, 1, 10.0)
    assert poll_queue.pop(10.0, even_probability) is task
    assert poll_queue.pop(99.0, even_probability) is None
    assert 1 in poll_queue
    poll_queue.schedule(task, 10.0)
    assert poll_queue.pop(99.0, even_probability) is task
    assert poll_queue.pop(99.0, even_probability) is None


def test_a_job_with_another_task_leaves_nothing_of_the_last_one() -> None:
    poll_queue = PollQueue()
    track_task(poll_queue, 1, 5.0, inherited=True)
    assert poll_queue.seconds_until_due(10.0) == 0.0
    task = track_task(poll_queue, 1, 12.0, born=8.0)
    assert poll_queue.seconds_until_due(10.0) == 2.0
    assert poll_queue.pop(12.0, even_probability) is task
    poll_queue.drop(1)
    assert poll_queue.seconds_until_due(30.0) is None
    assert poll_queue.pop(30.0, even_probability) is None
    assert not poll_queue.has_expiring_tasks(9999.0)


def test_a_rescheduled_task_is_due_at_its_last_time_only() -> None:
    poll_queue = PollQueue()
    task = track_task(poll_queue, 1, 10.0)
    poll_queue.schedule(task, 5.0)
    poll_queue.schedule(task, 30.0)
    assert poll_queue.pop(29.0, even_probability) is None
    assert poll_queue.pop(30.0, even_probability) is task
    assert poll_queue.pop(99.0, even_probability) is None


def test_a_dropped_task_is_neither_due_nor_known() -> None:
    poll_queue = PollQueue()
    track_task(poll_queue, 1, 10.0)
    poll_queue.drop(1)
    assert poll_queue.pop(99.0, even_probability) is None
    assert 1 not in poll_queue
    assert poll_queue.get(1) is None


def test_the_next_task_is_expiring_after_three_quarters_of_its_hour() -> None:
    poll_queue = PollQueue()
    track_task(poll_queue, 1, 10.0, born=100.0)
    assert not poll_queue.has_expiring_tasks(100.0 + EXPIRING_AFTER)
    assert poll_queue.has_expiring_tasks(100.1 + EXPIRING_AFTER)
    assert EXPIRING_AFTER < 3600


def test_of_those_that_are_due_the_likeliest_is_taken() -> None:
    poll_queue = PollQueue()
    for number in range(1, 6):
        track_task(poll_queue, number, due=10.0 * number)
    order = []
    for now in (45.0, 45.0, 99.0, 99.0, 99.0):
        task = poll_queue.pop(now, lambda task: task.id % 3 + task.id / 10)
        order.append(None if task is None else task.id)
    assert order == [2, 4, 5, 1, 3]


def test_a_task_whose_hour_is_running_out_goes_before_the_likeliest() -> None:
    poll_queue = PollQueue()
    track_task(poll_queue, 1, due=5000.0, born=4990.0)
    old = track_task(poll_queue, 2, due=5001.0, born=0.0)
    assert poll_queue.pop(5002.0, lambda task: 1.0 if task.id == 1 else 0.0) is old


def test_a_failed_poll_does_not_fall_behind_younger_due_tasks() -> None:
    poll_queue = PollQueue()
    for number in range(2, 100):
        track_task(poll_queue, number, due=1010.0, born=1000.0)
    old = track_task(poll_queue, 1, due=10.0, born=0.0)
    now = EXPIRING_AFTER + 1
    assert poll_queue.pop(now, even_probability) is old
    # The response was a 500.
    poll_queue.schedule(old, now + 2)
    assert poll_queue.pop(now + 1, even_probability) is not old
    assert poll_queue.has_expiring_tasks(now + 2)
    assert poll_queue.pop(now + 2, even_probability) is old


def test_a_task_found_unfinished_has_an_hour_from_then_on() -> None:
    poll_queue = PollQueue()
    task = track_task(poll_queue, 1, due=10.0)
    assert poll_queue.pop(3000.0, even_probability) is task
    task.last_open_age = 3000.0
    poll_queue.schedule(task, 3100.0)
    assert not poll_queue.has_expiring_tasks(3200.0)
    assert poll_queue.has_expiring_tasks(3001.0 + EXPIRING_AFTER)


def count_late_polls(ages: list[float]) -> int:
    """Return how many tasks of an earlier run, ``age`` seconds old, are queried too late."""
    poll_queue = PollQueue()
    for number, age in enumerate(ages):
        track_task(poll_queue, number, due=10_000.0, born=10_000.0 - age, inherited=True)
    now, lost = 10_000.0, 0
    while (task := poll_queue.pop(now, even_probability)) is not None:
        lost += now - task.born_at > 3600
        poll_queue.drop(task.id)
        now += 1.025 / 2
    return lost


def test_after_an_outage_5000_tasks_are_polled_in_time_if_possible() -> None:
    sent = [1.025 / 2 * number for number in range(5000)]
    assert count_late_polls([600.0 + age for age in sent]) == 0
    ages = [3000.0 + age for age in sent]
    too_late = sum(age > 3600 for age in ages)
    in_time = len(ages) - too_late
    assert count_late_polls(ages) <= too_late + in_time * 0.15, "late tasks make few others late"


def test_a_higher_priority_task_is_polled_first_once_it_is_probably_done() -> None:
    poll_queue = PollQueue()
    for number in range(1, 100):
        track_task(poll_queue, number, due=1.0)
    urgent = track_task(poll_queue, 100, due=50.0, rule="urgent")

    def rank(rule: str) -> int:
        return 5 if rule == "urgent" else 0

    assert poll_queue.find_priority_task(49.0, even_probability, rank) is not None, "one of the others"
    assert poll_queue.find_priority_task(50.0, even_probability, rank) == (5, urgent)
    assert poll_queue.find_priority_task(50.0, lambda task: 0.4 if task is urgent else 1.0, rank) is None
    assert poll_queue.pop(50.0, even_probability, preferred=urgent) is urgent
    assert poll_queue.find_priority_task(0.5, even_probability, rank) is not None
    assert PollQueue().find_priority_task(50.0, even_probability, rank) is None


@pytest.mark.untraced
@given(st.lists(st.tuples(st.integers(1, 8), st.floats(0, 100)), max_size=60), st.sets(st.integers(1, 8)))
def test_tasks_come_in_the_order_of_their_last_times_and_each_once(
    plan: list[tuple[int, float]], dropped: set[int]
) -> None:
    poll_queue = PollQueue()
    for number, due in plan:
        task = poll_queue.get(number)
        if task is None:
            track_task(poll_queue, number, due)
        else:
            poll_queue.schedule(task, due)
    for number in dropped:
        poll_queue.drop(number)
    expected = {number: due for number, due in plan if number not in dropped}
    popped = []
    while (task := poll_queue.pop(100.0, even_probability)) is not None:
        popped.append(task.id)
    assert sorted(popped) == sorted(expected)
    assert [expected[number] for number in popped] == sorted(expected.values())
