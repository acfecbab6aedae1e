"""The model of processing times: learnt from observations, robust against a few outliers, always looking ahead."""

import math
import random
from statistics import NormalDist, median, quantiles

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picwish_watchd.scheduling.duration_model import (
    DurationModel,
    max_useful_pending,
    normal_cdf,
    normal_quantile,
    quartiles,
)

ANY_SECONDS = st.floats(0, 1e6)
ANY_HISTORY = st.lists(ANY_SECONDS, max_size=30)
ANY_SHARES = st.floats(0.001, 0.999)


def lognormal_samples(middle: float, spread: float, number: int, seed: int = 3) -> list[float]:
    chance = random.Random(seed)
    return [chance.lognormvariate(math.log(middle), spread) for _ in range(number)]


def test_without_observations_a_task_is_assumed_to_take_about_eight_seconds() -> None:
    model = DurationModel()
    assert model.quantile(0.5) == pytest.approx(8.0)
    assert 12 < model.quantile(0.99) < 20


def test_untrained_polling_starts_early_and_backs_off() -> None:
    model = DurationModel()
    ages = [0.0]
    while ages[-1] < 8:
        ages.append(model.next_poll_age(ages[-1]))
    assert ages[1] == 0.25
    assert 8 <= len(ages) <= 15


@pytest.mark.parametrize("middle", [0.4, 3.0, 8.0, 25.0, 300.0])
@pytest.mark.parametrize("spread", [0.15, 0.3, 0.8])
def test_the_median_and_the_long_tail_are_learned(middle: float, spread: float) -> None:
    model = DurationModel()
    durations = lognormal_samples(middle, spread, 200)
    for seconds in durations:
        model.observe(seconds)
    assert model.quantile(0.5) == pytest.approx(median(durations), rel=0.01)
    assert model.quantile(0.99) == pytest.approx(median(durations) * math.exp(2.326 * spread), rel=0.4)
    assert model.quantile(0.5) / 5 < model.next_poll_age(0.0) < model.quantile(0.5)


def test_a_few_very_slow_tasks_change_little() -> None:
    durations = lognormal_samples(8, 0.3, 180)
    slow = [3600.0] * 20
    assert DurationModel(durations + slow).quantile(0.5) == pytest.approx(median(durations), rel=0.1)
    assert DurationModel(durations + slow).quantile(0.99) < 30


def test_the_last_two_hundred_tasks_count_and_no_older_ones() -> None:
    model = DurationModel(lognormal_samples(8, 0.3, 200))
    for seconds in lognormal_samples(60, 0.3, 200):
        model.observe(seconds)
    assert model.quantile(0.5) == pytest.approx(60, rel=0.15)


def test_a_model_from_the_journal_equals_that_of_its_writer() -> None:
    durations = lognormal_samples(8, 0.3, 250)
    learning = DurationModel()
    for seconds in durations:
        learning.observe(seconds)
    assert DurationModel(reversed(durations)).quantile(0.7) == learning.quantile(0.7)


@pytest.mark.untraced
@given(ANY_HISTORY, ANY_SHARES, ANY_SHARES)
def test_a_larger_share_takes_longer(history: list[float], one: float, other: float) -> None:
    model = DurationModel(history)
    low, high = sorted((one, other))
    assert 0 < model.quantile(low) <= model.quantile(high)


@pytest.mark.untraced
@given(ANY_HISTORY, ANY_SECONDS, ANY_SECONDS)
def test_with_age_more_tasks_are_done(history: list[float], one: float, other: float) -> None:
    model = DurationModel(history)
    young, old = sorted((one, other))
    assert 0 <= model.share_done(young) <= model.share_done(old) <= 1
    assert model.share_done(0) == 0


@pytest.mark.untraced
@given(ANY_HISTORY, ANY_SHARES)
def test_share_and_age_are_inverse_to_each_other(history: list[float], share: float) -> None:
    model = DurationModel(history)
    assert model.share_done(model.quantile(share)) == pytest.approx(share, abs=1e-6)


@pytest.mark.untraced
@settings(max_examples=300)
@given(ANY_HISTORY, ANY_SECONDS)
def test_the_next_query_is_always_ahead(history: list[float], open_at: float) -> None:
    assert DurationModel(history).next_poll_age(open_at) > open_at


def test_an_outlier_task_is_polled_ever_more_rarely_but_forever() -> None:
    model = DurationModel(lognormal_samples(8, 0.3, 200))
    age, queries = 0.0, 0
    while age < 3600:
        age = model.next_poll_age(age)
        queries += 1
    assert queries < 60


def simulate_cost(model: DurationModel, tasks: list[float]) -> tuple[float, float]:
    """Return (queries per task, added latency in seconds) where no other request waits for a permit."""
    queries, late = 0, 0.0
    for seconds in tasks:
        age = 0.0
        while age < seconds:
            age = model.next_poll_age(age)
            queries += 1
        late += age - seconds
    return queries / len(tasks), late / len(tasks)


def test_a_lone_task_costs_half_the_polls_of_one_a_second_at_equal_latency() -> None:
    """One query a second costs 8.9 queries for 0.5 s. The optimum for 0.5 s is 4.3 queries."""
    queries, late = simulate_cost(
        DurationModel(lognormal_samples(8, 0.3, 200)), lognormal_samples(8, 0.3, 2000, seed=2)
    )
    assert queries < 4.7
    assert late < 0.55


def test_a_slow_service_costs_little_more_queries_and_a_fast_one_little_latency() -> None:
    queries, late = simulate_cost(
        DurationModel(lognormal_samples(80, 0.3, 200)), lognormal_samples(80, 0.3, 500, seed=2)
    )
    assert queries < 9
    assert late < 3.5
    queries, late = simulate_cost(
        DurationModel(lognormal_samples(0.8, 0.3, 200)), lognormal_samples(0.8, 0.3, 500, seed=2)
    )
    assert queries < 3
    assert late < 0.11


def test_a_slow_period_and_its_end_are_each_learned_from_eight_tasks() -> None:
    model = DurationModel(lognormal_samples(8, 0.3, 200))
    floods, _ = simulate_cost(model, lognormal_samples(80, 0.3, 50, seed=5))
    # The task takes ten times as long; one query a second would be 84.
    assert floods < 30
    for seconds in lognormal_samples(80, 0.3, 16, seed=5):
        model.observe(seconds)
    assert model.quantile(0.5) == pytest.approx(80, rel=0.3)
    assert model.quantile(0.99) < 80 * 3
    for seconds in lognormal_samples(8, 0.3, 16, seed=6):
        model.observe(seconds)
    assert model.quantile(0.5) == pytest.approx(8, rel=0.3)
    assert model.quantile(0.99) < 8 * 3


def test_after_the_first_task_none_is_queried_in_the_first_seconds() -> None:
    model = DurationModel()
    model.observe(8.0)
    assert model.next_poll_age(0.0) == 4.0


def test_the_quickest_first_tasks_do_not_lower_max_pending() -> None:
    model = DurationModel()
    before = model.p99
    for seconds in sorted(lognormal_samples(8, 0.3, 60))[:20]:
        model.observe(seconds)
    assert model.p99 == before == pytest.approx(16, rel=0.01)
    assert max_useful_pending(2, model.p99) == 32


@pytest.mark.parametrize("middle", [0.01, 2.0, 60.0, 150.0])
def test_max_pending_stays_bounded_while_durations_change(middle: float) -> None:
    for initial in (DurationModel(), DurationModel(lognormal_samples(8, 0.3, 200))):
        model = initial
        for seconds in lognormal_samples(middle, 0.3, 60):
            model.observe(seconds)
            assert max_useful_pending(2, model.p99) <= 2 * max_useful_pending(2, max(16.0, 2 * middle))


def test_a_service_that_takes_hours_gets_no_more_than_can_be_collected() -> None:
    model = DurationModel(lognormal_samples(5000, 0.3, 200))
    assert max_useful_pending(2, model.p99) == 2400
    assert max_useful_pending(2, DurationModel(lognormal_samples(0.1, 0.3, 200)).p99) == 4


@pytest.mark.untraced
@given(ANY_HISTORY, ANY_SECONDS, ANY_SECONDS)
def test_a_duration_known_within_bounds_is_placed_between_them(history: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert low <= DurationModel(history).spread_within(low, high) <= high


@pytest.mark.untraced
def test_a_model_fed_with_its_own_guesses_stays_unchanged() -> None:
    """With a service that reports no times and a backlog, each task is found done half a minute after its creation."""
    model = DurationModel(lognormal_samples(8, 0.3, 200))
    for _ in range(2000):
        model.observe(model.spread_within(0.0, 32.0))
    assert model.quantile(0.5) == pytest.approx(8, rel=0.15)
    assert model.quantile(0.99) == pytest.approx(16, rel=0.3)


@pytest.mark.untraced
@given(ANY_HISTORY, ANY_SECONDS, ANY_SECONDS)
def test_the_longer_ago_a_task_was_queried_the_likelier_it_is_done(
    history: list[float], one: float, other: float
) -> None:
    model = DurationModel(history)
    young, old = sorted((one, other))
    assert 0 <= model.probability_done(1.0, 1.0 + young) <= model.probability_done(1.0, 1.0 + old) <= 1


def test_reported_times_are_used_as_far_as_they_agree_with_observations() -> None:
    assert DurationModel().estimate_duration(6.0, 20.0, 8.25) == 8.25
    assert 7.0 <= DurationModel().estimate_duration(0.0, 20.0, 8.0) <= 9.0
    assert DurationModel().estimate_duration(6.0, 8.0, 8.25) == 8.0, "PicWish's clock is ahead by the network's delay"
    for nonsense in (None, -7200.0, 7200.0, 0.0):
        assert 6.0 <= DurationModel().estimate_duration(6.0, 8.0, nonsense) <= 8.0


def test_wrong_reported_times_are_ignored_in_a_backlog() -> None:
    """Such a service reports the end as the time of creation, for a task that is queried once it may have ended."""
    model = DurationModel()
    model.observe(model.estimate_duration(6.0, 8.0, 0.0))
    for _ in range(200):
        model.observe(model.estimate_duration(0.0, 16.0, 0.0))
    assert model.quantile(0.5) == pytest.approx(8, rel=0.3)
    assert max_useful_pending(2, model.p99) >= 24


def test_reported_times_are_used_again_after_some_correct_ones() -> None:
    model = DurationModel()
    model.estimate_duration(6.0, 8.0, 7200.0)
    for _ in range(3):
        assert model.estimate_duration(5.0, 20.0, 8.25) != 8.25
    assert model.estimate_duration(5.0, 20.0, 8.25) == 8.25


def test_a_clock_that_was_set_back_leads_to_no_odd_durations() -> None:
    assert DurationModel().estimate_duration(0.0, 0.0, None) == pytest.approx(8.0)
    assert DurationModel().estimate_duration(0.0, 0.0, 8.0) == pytest.approx(8.0)


@given(ANY_HISTORY, ANY_SECONDS, ANY_SECONDS, st.none() | st.floats(-1e9, 1e9))
def test_a_learned_duration_never_contradicts_the_observations(
    history: list[float], one: float, other: float, reported: float | None
) -> None:
    low, high = sorted((one, other))
    took = DurationModel(history).estimate_duration(low, high, reported)
    assert low <= took <= high or high <= 0 < took


@given(st.floats(1e-6, 1 - 1e-6), st.lists(st.floats(-10, 10), min_size=2, max_size=40))
def test_the_normal_law_and_the_quartiles_are_those_of_the_standard_library(share: float, values: list[float]) -> None:
    assert normal_quantile(share) == pytest.approx(NormalDist().inv_cdf(share), abs=1e-9)
    assert normal_cdf(values[0]) == pytest.approx(NormalDist().cdf(values[0]), abs=1e-12)
    assert quartiles(values) == pytest.approx(tuple(quantiles(values, n=4)))
