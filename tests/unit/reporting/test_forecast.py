"""The forecast: a time that holds where one can be given, and the reason where none can."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from picwish_watchd.config.loader import load_config
from picwish_watchd.config.model import Config
from picwish_watchd.job import NewJob, Stamp, State
from picwish_watchd.journal.writer import ChargeState, Journal
from picwish_watchd.reporting.forecast import (
    Forecast,
    RemainingWork,
    Throughput,
    build_forecast,
    format_remaining,
    predict,
)
from tests.support.fake_clock import FakeClock

USUAL_PACE = Throughput(rate=2.0, median_seconds=8.0, p90_seconds=12.0, max_pending=32)


def test_a_backlog_takes_two_requests_an_image() -> None:
    prediction = predict(RemainingWork(queued_async=120, queued_sync=0, running=0, credits=600), USUAL_PACE)
    assert prediction.seconds == pytest.approx(123)
    assert prediction.per_hour == pytest.approx(3512, rel=0.01)
    assert (prediction.images, prediction.credits) == (120, 600)


def test_sync_takes_one_and_the_wait_for_the_last_one() -> None:
    prediction = predict(RemainingWork(queued_async=0, queued_sync=120, running=0, credits=600), USUAL_PACE)
    assert prediction.seconds == pytest.approx(61.5 + 12)
    assert prediction.per_hour == pytest.approx(7024, rel=0.01)


def test_a_lone_image_takes_as_long_as_picwish_needs() -> None:
    assert predict(RemainingWork(1, 0, 0, 5), USUAL_PACE).seconds == pytest.approx(12.5, abs=0.1)
    assert predict(RemainingWork(0, 0, 1, 0), USUAL_PACE).seconds == 12


def test_a_lowered_rate_and_too_few_tasks_at_once_take_longer() -> None:
    work = RemainingWork(100, 0, 0, 500)
    assert predict(work, USUAL_PACE._replace(rate=0.5)).seconds == pytest.approx(410)
    assert predict(work, USUAL_PACE._replace(max_pending=4)).per_hour == 1800


def test_blocked_images_get_no_promise_but_pending_ones_do() -> None:
    assert predict(RemainingWork(1, 0, 5, 5), USUAL_PACE, ["the key is refused"]).seconds is None
    assert predict(RemainingWork(0, 0, 5, 0), USUAL_PACE, ["the key is refused"]).seconds is not None


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "10 s"), (44, "40 s"), (100, "2 min"), (7100, "118 min"), (12_000, "3 h 20 min")]
)
def test_times_are_formatted_as_precisely_as_they_are_known(seconds: float, words: str) -> None:
    assert format_remaining(seconds) == words


class ForecastHarness:
    """A journal with two rules, and its forecast."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.folder = folder
        self.journal = Journal.open_for_writing(folder / "state" / "journal.db", self.clock)

    def config(self, **top: Any) -> Config:
        rules = [
            {"name": "hd", "inbox": "hd", "outbox": "out", "type": 1},
            {"name": "ultra", "inbox": "ultra", "outbox": "out", "sync": 1},
        ]
        file = self.folder / "watchd.yaml"
        file.write_text(yaml.safe_dump({"journal": "state/journal.db", "rules": rules, **top}))
        return load_config(file, {})

    def queue_images(self, rule: str, number: int, *, flood: bool = False) -> None:
        stamp = Stamp(1, 1, 1)
        self.journal.add_jobs(
            [
                NewJob(rule, Path(f"/in/{each}"), Path(str(each)), stamp, sha256=f"{rule}{each}", flood=flood)
                for each in range(number)
            ]
        )

    def make_forecast(self, stopped: str | None = None, *, collecting: bool = True, **top: Any) -> Forecast:
        return build_forecast(
            self.config(**top).summary(),
            self.journal,
            self.clock.now(),
            counts=self.journal.counts_by_rule(),
            rate=2.0,
            stopped=stopped,
            collecting=collecting,
        )


@pytest.fixture
def forecast_harness(tmp_path: Path) -> Iterator[ForecastHarness]:
    harness = ForecastHarness(tmp_path)
    yield harness
    harness.journal.close()


def test_each_rule_counts_as_it_is_sent_and_priced(forecast_harness: ForecastHarness) -> None:
    forecast_harness.queue_images("hd", 100)
    forecast_harness.queue_images("ultra", 100)
    ahead = forecast_harness.make_forecast()
    assert (ahead.images, ahead.credits, ahead.waits_for) == (200, 900, ())
    assert ahead.seconds == pytest.approx(300 * 0.5125)
    assert ahead.render() == "200 images, 4,700 an hour: done in about 3 min, at most 900 credits"


def test_an_empty_journal_has_nothing_to_say(forecast_harness: ForecastHarness) -> None:
    assert forecast_harness.make_forecast().render() == ""
    assert forecast_harness.make_forecast("the daemon does not run").render() == ""


def test_a_closed_gate_is_reported_instead_of_a_time(forecast_harness: ForecastHarness) -> None:
    forecast_harness.queue_images("hd", 1)
    text = forecast_harness.make_forecast("the key is refused").render()
    assert text == "1 image, at most 4 credits; no end can be predicted, it waits: the key is refused"


def test_an_insufficient_budget_is_reported_instead_of_a_time(forecast_harness: ForecastHarness) -> None:
    forecast_harness.queue_images("hd", 10)
    assert forecast_harness.make_forecast(budget={"per_day": 40}).seconds is not None
    short = forecast_harness.make_forecast(budget={"per_day": 39, "per_month": 100})
    assert short.seconds is None
    assert short.waits_for == ("the budget has 39 credits left; images beyond that wait until it is renewed",)


def test_a_flood_is_no_part_of_the_promise(forecast_harness: ForecastHarness) -> None:
    forecast_harness.queue_images("hd", 10)
    forecast_harness.queue_images("ultra", 50, flood=True)
    ahead = forecast_harness.make_forecast()
    assert (ahead.images, ahead.credits) == (10, 40)
    assert ahead.seconds is not None
    assert ahead.waits_for == ("50 images (250 credits) wait for `picwish-watchd approve ultra`",)


def test_an_unavailable_outbox_is_reported_instead_of_a_time(forecast_harness: ForecastHarness) -> None:
    forecast_harness.queue_images("hd", 30)
    forecast_harness.journal.postpone_jobs("hd", State.QUEUED, "the outbox is away", forecast_harness.clock.now() + 30)
    ahead = forecast_harness.make_forecast()
    assert (ahead.seconds, ahead.waits_for) == (None, ("hd: the outbox is away",))
    forecast_harness.clock.advance(30.5)
    assert forecast_harness.make_forecast().seconds is None, "the job is just being tried again"
    forecast_harness.clock.advance(5)
    assert forecast_harness.make_forecast().seconds is not None


def test_an_unavailable_outbox_is_reported_beside_a_flood(forecast_harness: ForecastHarness) -> None:
    forecast_harness.queue_images("hd", 5)
    forecast_harness.queue_images("hd", 20, flood=True)
    forecast_harness.journal.postpone_jobs("hd", State.QUEUED, "the outbox is away", forecast_harness.clock.now() + 30)
    ahead = forecast_harness.make_forecast()
    flood = "20 images (80 credits) wait for `picwish-watchd approve hd`"
    assert (ahead.seconds, ahead.waits_for) == (None, ("hd: the outbox is away", flood))


def test_undeliverable_results_are_reported_and_stop_no_other_image(forecast_harness: ForecastHarness) -> None:
    forecast_harness.queue_images("hd", 3)
    submit_images(forecast_harness, 3, 1, to=State.DELIVERING)
    assert forecast_harness.make_forecast().render() == ""
    # This job is the oldest.
    last = forecast_harness.journal.jobs(limit=1)[0]
    forecast_harness.journal.update(last, note="the outbox is away", not_before=forecast_harness.clock.now() + 30)
    assert forecast_harness.make_forecast().render() == "hd: 3 results wait to be delivered: the outbox is away"
    forecast_harness.journal.postpone_jobs(
        "hd", State.DELIVERING, "the outbox is away", forecast_harness.clock.now() + 30
    )
    assert forecast_harness.make_forecast().render() == "hd: 3 results wait to be delivered: the outbox is away"
    forecast_harness.queue_images("ultra", 1)
    ahead = forecast_harness.make_forecast()
    assert ahead.seconds is not None
    assert ahead.waits_for == ("hd: 3 results wait to be delivered: the outbox is away",)


def test_pending_tasks_get_no_promise_while_nothing_is_collected(forecast_harness: ForecastHarness) -> None:
    forecast_harness.queue_images("hd", 2)
    submit_images(forecast_harness, 2, 1)
    assert forecast_harness.make_forecast("the budget is reached").seconds is not None
    ahead = forecast_harness.make_forecast("the daemon does not run", collecting=False)
    assert ahead.seconds is None
    assert ahead.render() == "2 images, no end can be predicted, it waits: the daemon does not run"


def test_a_rule_that_left_the_configuration_is_no_part_of_it(forecast_harness: ForecastHarness) -> None:
    forecast_harness.queue_images("gone", 30)
    assert forecast_harness.make_forecast().images == 0


def test_a_fractional_rate_promises_no_more_than_the_limiter_grants(forecast_harness: ForecastHarness) -> None:
    forecast_harness.queue_images("hd", 100)
    assert forecast_harness.make_forecast(api={"qps": 1.5}).seconds == pytest.approx(200 * 1.025)
    assert forecast_harness.make_forecast(api={"qps": 2.9}).seconds == pytest.approx(100 * 1.025)


def submit_images(
    forecast_harness: ForecastHarness, number: int, every: float, *, to: State = State.SUBMITTING
) -> None:
    """Submit this number of queued images, one every ``every`` seconds."""
    for job in forecast_harness.journal.jobs(states=[State.QUEUED], limit=number, oldest_first=True):
        forecast_harness.clock.advance(every)
        job = forecast_harness.journal.transition(
            job, State.SUBMITTING, "sent", reserve=4, submitted_at=forecast_harness.clock.now()
        )
        if to is not State.SUBMITTING:
            forecast_harness.journal.transition(job, to, "its result is here")


def test_a_slow_connection_is_not_promised_faster(forecast_harness: ForecastHarness) -> None:
    forecast_harness.queue_images("hd", 500)
    submit_images(forecast_harness, 19, 10)
    assert forecast_harness.make_forecast().per_hour > 3000
    submit_images(forecast_harness, 1, 8 * 3600)
    assert forecast_harness.make_forecast().per_hour == pytest.approx(360), "the night does not count for the pace"
    submit_images(forecast_harness, 20, 0.5)
    assert forecast_harness.make_forecast().per_hour > 3000


def test_days_limited_by_a_small_budget_do_not_count_as_pace(forecast_harness: ForecastHarness) -> None:
    forecast_harness.queue_images("hd", 500)
    for _ in range(5):
        submit_images(forecast_harness, 1, 24 * 3600)
        submit_images(forecast_harness, 3, 0.5)
    assert forecast_harness.make_forecast().per_hour > 3000


def test_images_that_arrive_one_by_one_do_not_count_as_pace(forecast_harness: ForecastHarness) -> None:
    for _ in range(25):
        forecast_harness.queue_images("hd", 1)
        submit_images(forecast_harness, 1, 60)
    forecast_harness.queue_images("hd", 100)
    assert forecast_harness.make_forecast().per_hour > 3000


def test_the_durations_of_an_unused_type_slow_no_other_rule(forecast_harness: ForecastHarness) -> None:
    forecast_harness.queue_images("hd", 10)
    for job in forecast_harness.journal.jobs(oldest_first=True):
        job = forecast_harness.journal.transition(job, State.SUBMITTING, "sent", reserve=4, type=1)
        job = forecast_harness.journal.transition(job, State.PENDING, "taken", task_id=f"t{job.id}")
        job = forecast_harness.journal.transition(
            job, State.FETCHING, "done", charge=ChargeState.SPENT, task_seconds=80.0
        )
        forecast_harness.journal.transition(job, State.DELIVERING, "here")
    forecast_harness.queue_images("ultra", 50)
    alone = forecast_harness.make_forecast(api={"max_pending": 8})
    assert alone.per_hour == pytest.approx(3600, rel=0.05), "8 at a time, of 8 s"
    forecast_harness.queue_images("hd", 50)
    assert forecast_harness.make_forecast(api={"max_pending": 8}).per_hour < 450
