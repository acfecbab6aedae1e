"""The agenda: of the tasks at PicWish the one that is due first is asked for first, and never twice at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picwish_watchd.scheduling.poll_queue import EXPIRING, Agenda, Followed


def followed(
    agenda: Agenda, number: int, due: float, born: float = 0.0, *, rule: str = "scans", inherited: bool = False
) -> Followed:
    task = Followed(number, 0, rule, born=born, inherited=inherited)
    agenda.follow(task, due)
    return task


def evenly(_task: Followed) -> float:
    return 0.5


def test_an_empty_agenda_has_nothing_to_wait_for() -> None:
    agenda = Agenda()
    assert agenda.wait(5.0) is None
    assert agenda.take(5.0, evenly) is None
    assert not agenda.expiring(5.0)
    assert agenda.get(1) is None
    agenda.drop(1)


def test_the_earliest_due_is_taken_once_it_is_due() -> None:
    agenda = Agenda()
    late, early = followed(agenda, 1, 20.0), followed(agenda, 2, 10.0)
    assert agenda.wait(4.0) == 6.0
    assert agenda.take(9.9, evenly) is None
    assert agenda.take(10.0, evenly) is early
    assert early.due is None
    assert agenda.wait(12.0) == 8.0
    assert agenda.wait(25.0) == 0.0
    assert agenda.take(25.0, evenly) is late


def test_a_task_that_is_being_asked_for_is_not_due_until_it_is_scheduled_again() -> None:
    agenda = Agenda()
    task = followed(agenda, 1, 10.0)
    assert agenda.take(10.0, evenly) is task
    assert agenda.take(99.0, evenly) is None
    assert 1 in agenda
    agenda.schedule(task, 10.0)
    assert agenda.take(99.0, evenly) is task
    assert agenda.take(99.0, evenly) is None


def test_a_job_with_another_task_leaves_nothing_of_the_last_one() -> None:
    agenda = Agenda()
    followed(agenda, 1, 5.0, inherited=True)
    assert agenda.wait(10.0) == 0.0
    task = followed(agenda, 1, 12.0, born=8.0)
    assert agenda.wait(10.0) == 2.0
    assert agenda.take(12.0, evenly) is task
    agenda.drop(1)
    assert agenda.wait(30.0) is None
    assert agenda.take(30.0, evenly) is None
    assert not agenda.expiring(9999.0)


def test_a_task_scheduled_anew_is_due_at_its_last_time_only() -> None:
    agenda = Agenda()
    task = followed(agenda, 1, 10.0)
    agenda.schedule(task, 5.0)
    agenda.schedule(task, 30.0)
    assert agenda.take(29.0, evenly) is None
    assert agenda.take(30.0, evenly) is task
    assert agenda.take(99.0, evenly) is None


def test_a_dropped_task_is_neither_due_nor_known() -> None:
    agenda = Agenda()
    followed(agenda, 1, 10.0)
    agenda.drop(1)
    assert agenda.take(99.0, evenly) is None
    assert 1 not in agenda
    assert agenda.get(1) is None


def test_the_next_task_is_expiring_after_three_quarters_of_its_hour() -> None:
    agenda = Agenda()
    followed(agenda, 1, 10.0, born=100.0)
    assert not agenda.expiring(100.0 + EXPIRING)
    assert agenda.expiring(100.1 + EXPIRING)
    assert EXPIRING < 3600


def test_of_those_that_are_due_the_likeliest_is_taken() -> None:
    agenda = Agenda()
    for number in range(1, 6):
        followed(agenda, number, due=10.0 * number)
    order = []
    for now in (45.0, 45.0, 99.0, 99.0, 99.0):
        task = agenda.take(now, lambda task: task.id % 3 + task.id / 10)
        order.append(None if task is None else task.id)
    assert order == [2, 4, 5, 1, 3]


def test_a_task_whose_hour_is_running_out_goes_before_the_likeliest() -> None:
    agenda = Agenda()
    followed(agenda, 1, due=5000.0, born=4990.0)
    old = followed(agenda, 2, due=5001.0, born=0.0)
    assert agenda.take(5002.0, lambda task: 1.0 if task.id == 1 else 0.0) is old


def test_a_task_that_was_asked_for_in_vain_is_not_thrown_behind_younger_ones_that_are_due() -> None:
    agenda = Agenda()
    for number in range(2, 100):
        followed(agenda, number, due=1010.0, born=1000.0)
    old = followed(agenda, 1, due=10.0, born=0.0)
    now = EXPIRING + 1
    assert agenda.take(now, evenly) is old
    agenda.schedule(old, now + 2)  # the answer was a 500
    assert agenda.take(now + 1, evenly) is not old
    assert agenda.expiring(now + 2)
    assert agenda.take(now + 2, evenly) is old


def test_a_task_that_was_seen_unfinished_has_an_hour_from_then_on() -> None:
    agenda = Agenda()
    task = followed(agenda, 1, due=10.0)
    assert agenda.take(3000.0, evenly) is task
    task.open_at = 3000.0
    agenda.schedule(task, 3100.0)
    assert not agenda.expiring(3200.0)
    assert agenda.expiring(3001.0 + EXPIRING)


def lost_of(ages: list[float]) -> int:
    """Of tasks of an earlier run, so many seconds old, the number that is asked for after its hour."""
    agenda = Agenda()
    for number, age in enumerate(ages):
        followed(agenda, number, due=10_000.0, born=10_000.0 - age, inherited=True)
    now, lost = 10_000.0, 0
    while (task := agenda.take(now, evenly)) is not None:
        lost += now - task.born > 3600
        agenda.drop(task.id)
        now += 1.025 / 2
    return lost


def test_after_an_outage_five_thousand_tasks_are_asked_for_in_time_as_far_as_that_can_be() -> None:
    sent = [1.025 / 2 * number for number in range(5000)]
    assert lost_of([600.0 + age for age in sent]) == 0
    ages = [3000.0 + age for age in sent]
    too_late = sum(age > 3600 for age in ages)
    in_time = len(ages) - too_late
    assert lost_of(ages) <= too_late + in_time * 0.15, "those that are too late make few others too late"


def test_a_higher_priority_is_worth_a_query_once_its_task_is_as_likely_done_as_not() -> None:
    agenda = Agenda()
    for number in range(1, 100):
        followed(agenda, number, due=1.0)
    urgent = followed(agenda, 100, due=50.0, rule="urgent")

    def rank(rule: str) -> int:
        return 5 if rule == "urgent" else 0

    assert agenda.favoured(49.0, evenly, rank) is not None, "of the others one"
    assert agenda.favoured(50.0, evenly, rank) == (5, urgent)
    assert agenda.favoured(50.0, lambda task: 0.4 if task is urgent else 1.0, rank) is None
    assert agenda.take(50.0, evenly, prefer=urgent) is urgent
    assert agenda.favoured(0.5, evenly, rank) is not None
    assert Agenda().favoured(50.0, evenly, rank) is None


@pytest.mark.untraced
@given(st.lists(st.tuples(st.integers(1, 8), st.floats(0, 100)), max_size=60), st.sets(st.integers(1, 8)))
def test_tasks_come_in_the_order_of_their_last_times_and_each_once(
    plan: list[tuple[int, float]], dropped: set[int]
) -> None:
    agenda = Agenda()
    for number, due in plan:
        task = agenda.get(number)
        if task is None:
            followed(agenda, number, due)
        else:
            agenda.schedule(task, due)
    for number in dropped:
        agenda.drop(number)
    left = {number: due for number, due in plan if number not in dropped}
    taken = []
    while (task := agenda.take(100.0, evenly)) is not None:
        taken.append(task.id)
    assert sorted(taken) == sorted(left)
    assert [left[number] for number in taken] == sorted(left.values())
