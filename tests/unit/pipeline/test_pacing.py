"""The policy as a whole, in simulated time: what an image costs in requests, and how long its result lies there.

Law and agenda are the real ones; a slot comes every 1.025/QPS seconds, as the pacer grants them, and goes to a create
while images wait and fewer than ``max_pending`` tasks are at PicWish, else to a query.
"""

import math
import random
from dataclasses import dataclass
from functools import partial
from statistics import mean

import pytest

from picwish_watchd.scheduling.duration_model import Law
from picwish_watchd.scheduling.poll_queue import Agenda, Followed

QPS, MEDIAN, SIGMA = 2.0, 8.0, 0.3


@dataclass(frozen=True)
class Course:
    """What came of it."""

    seconds: float  #: from the first create to the last result
    queries: float  #: an image
    late: float  #: seconds from a task's end to the answer that tells of it, mean
    waits: float  #: seconds from an image's arrival to its create, mean


def likely(law: Law, now: float, task: Followed) -> float:
    return law.likely(task.open_at, now - task.born)


def course(arrivals: list[float], *, seed: int = 1, max_pending: int = 32, learnt: bool = True) -> Course:
    chance = random.Random(seed)
    law = Law(chance.lognormvariate(math.log(MEDIAN), SIGMA) for _ in range(200 if learnt else 0))
    agenda, waiting, number = Agenda(), sorted(arrivals), len(arrivals)
    ends: dict[int, float] = {}
    late: list[float] = []
    waits: list[float] = []
    queries, now = 0, waiting[0]
    while len(late) < number:
        slot_used = True
        if waiting and waiting[0] <= now and len(ends) < max_pending:
            waits.append(now - waiting.pop(0))
            task = Followed(len(waits), 0, "scans", born=now)
            ends[task.id] = now + chance.lognormvariate(math.log(MEDIAN), SIGMA)
            agenda.follow(task, now + law.next_query(0.0))
        elif asked := agenda.take(now, partial(likely, law, now)):
            queries += 1
            if (end := ends[asked.id]) <= now:
                late.append(now - end)
                law.learn(end - asked.born)
                agenda.drop(asked.id)
                del ends[asked.id]
            else:
                asked.open_at = now - asked.born
                agenda.schedule(asked, asked.born + law.next_query(asked.open_at))
        else:
            slot_used = False
        pause = agenda.wait(now)
        soonest = min(waiting[0] - now if waiting else math.inf, math.inf if pause is None else pause)
        now += 1.025 / QPS if slot_used else max(0.001, soonest)
    return Course(now - arrivals[0], queries / number, mean(late), mean(waits))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("learnt", [True, False])
def test_a_backlog_costs_two_requests_an_image_and_no_slot_is_idle(seed: int, learnt: bool) -> None:
    found = course([0.0] * 120, seed=seed, learnt=learnt)
    assert found.queries <= 1.05
    assert found.seconds / (2 * 120 / QPS + MEDIAN) <= 0.97


def test_twenty_images_take_hardly_longer_than_the_requests_that_they_cost() -> None:
    found = course([0.0] * 20)
    assert found.seconds <= 1.35 * max(2 * 20 / QPS, 20 / QPS + MEDIAN)
    assert found.queries < 2.5


def test_a_lone_image_costs_half_the_queries_of_asking_every_second_for_the_same_latency() -> None:
    found = course([60.0 * number for number in range(300)])
    assert found.queries < 4.7
    assert found.late < 0.6
    assert found.waits == 0


def test_a_steady_stream_is_asked_for_as_well_as_the_requests_allow_and_its_creates_do_not_wait() -> None:
    found = course([2.0 * number for number in range(300)])
    assert found.queries < 3.1  # 1.96 requests a second, one every other second of them a create
    assert found.late < 1.2
    assert found.waits < 0.3


def test_a_stream_that_needs_nearly_all_requests_costs_hardly_more_than_one_query_an_image() -> None:
    found = course([1.1 * number for number in range(400)])
    assert found.queries < 1.3
    assert found.waits < 0.5


@pytest.mark.untraced
def test_too_few_tasks_at_once_cost_throughput_and_a_few_more_cost_nothing() -> None:
    paces = {most: 3600 * 200 / course([0.0] * 200, max_pending=most).seconds for most in (8, 32, 64)}
    assert paces[32] == pytest.approx(paces[64], rel=0.02)
    assert paces[8] < 0.85 * paces[32]
