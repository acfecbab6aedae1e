"""The polling policy in simulated time: requests per image, and how long a result waits at PicWish.

Duration model and poll queue are the real ones. A permit comes every 1.025/QPS seconds, as the rate limiter grants
them. It goes to a create while images wait and fewer than ``max_pending`` tasks are at PicWish, else to a query.
"""

import math
import random
from dataclasses import dataclass
from functools import partial
from statistics import mean

import pytest

from picwish_watchd.scheduling.duration_model import DurationModel
from picwish_watchd.scheduling.poll_queue import PollQueue, TrackedTask

QPS, MEDIAN, SIGMA = 2.0, 8.0, 0.3


@dataclass(frozen=True)
class SimulationResult:
    """Figures of one simulation."""

    #: From the first create to the last result.
    seconds: float
    #: Queries per image.
    queries: float
    #: Mean time in seconds from a task's end to the response that reports it.
    mean_latency: float
    #: Mean time in seconds from an image's arrival to its create.
    waits: float


def estimate_done(model: DurationModel, now: float, task: TrackedTask) -> float:
    return model.probability_done(task.last_open_age, now - task.born_at)


def simulate(arrivals: list[float], *, seed: int = 1, max_pending: int = 32, trained: bool = True) -> SimulationResult:
    chance = random.Random(seed)
    model = DurationModel(chance.lognormvariate(math.log(MEDIAN), SIGMA) for _ in range(200 if trained else 0))
    poll_queue, waiting, number = PollQueue(), sorted(arrivals), len(arrivals)
    ends: dict[int, float] = {}
    late: list[float] = []
    waits: list[float] = []
    queries, now = 0, waiting[0]
    while len(late) < number:
        slot_used = True
        if waiting and waiting[0] <= now and len(ends) < max_pending:
            waits.append(now - waiting.pop(0))
            task = TrackedTask(len(waits), 0, "scans", born_at=now)
            ends[task.id] = now + chance.lognormvariate(math.log(MEDIAN), SIGMA)
            poll_queue.track(task, now + model.next_poll_age(0.0))
        elif polled := poll_queue.pop(now, partial(estimate_done, model, now)):
            queries += 1
            if (end := ends[polled.id]) <= now:
                late.append(now - end)
                model.observe(end - polled.born_at)
                poll_queue.drop(polled.id)
                del ends[polled.id]
            else:
                polled.last_open_age = now - polled.born_at
                poll_queue.schedule(polled, polled.born_at + model.next_poll_age(polled.last_open_age))
        else:
            slot_used = False
        pause = poll_queue.seconds_until_due(now)
        soonest = min(waiting[0] - now if waiting else math.inf, math.inf if pause is None else pause)
        now += 1.025 / QPS if slot_used else max(0.001, soonest)
    return SimulationResult(now - arrivals[0], queries / number, mean(late), mean(waits))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("trained", [True, False])
def test_a_backlog_costs_two_requests_an_image_and_wastes_no_permit(seed: int, trained: bool) -> None:
    result = simulate([0.0] * 120, seed=seed, trained=trained)
    assert result.queries <= 1.05
    assert result.seconds / (2 * 120 / QPS + MEDIAN) <= 0.97


def test_twenty_images_take_hardly_longer_than_the_requests_that_they_cost() -> None:
    result = simulate([0.0] * 20)
    assert result.seconds <= 1.35 * max(2 * 20 / QPS, 20 / QPS + MEDIAN)
    assert result.queries < 2.5


def test_a_lone_image_costs_half_the_polls_of_one_a_second() -> None:
    result = simulate([60.0 * number for number in range(300)])
    assert result.queries < 4.7
    assert result.mean_latency < 0.6
    assert result.waits == 0


def test_a_steady_stream_is_polled_with_spare_requests_and_delays_no_create() -> None:
    result = simulate([2.0 * number for number in range(300)])
    # Of 1.96 requests a second, every other second one is a create.
    assert result.queries < 3.1
    assert result.mean_latency < 1.2
    assert result.waits < 0.3


def test_a_stream_near_the_rate_limit_costs_about_one_query_an_image() -> None:
    result = simulate([1.1 * number for number in range(400)])
    assert result.queries < 1.3
    assert result.waits < 0.5


@pytest.mark.untraced
def test_too_few_tasks_at_once_cost_throughput_and_a_few_more_cost_nothing() -> None:
    paces = {most: 3600 * 200 / simulate([0.0] * 200, max_pending=most).seconds for most in (8, 32, 64)}
    assert paces[32] == pytest.approx(paces[64], rel=0.02)
    assert paces[8] < 0.85 * paces[32]
