"""What is reported, when and how often: with a real journal, gate and webhook, and a fake clock."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from picwish_watchd.config.model import Config
from picwish_watchd.job import ErrorCode, Job, NewJob, Problem, Stamp, State
from picwish_watchd.notify.dispatcher import NotificationDispatcher
from picwish_watchd.notify.state_file import state_path
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pipeline.gate import CloseReason, Gate
from picwish_watchd.pipeline.inboxes import Inboxes
from picwish_watchd.scheduling.rate_limiter import RateLimiter
from tests.support.fake_clock import FakeClock
from tests.support.fake_receivers import WebhookReceiver
from tests.support.harness import Harness, wait_until
from tests.support.step_context import open_step_context


class DispatcherHarness:
    """A dispatcher with a journal that nothing else uses."""

    def __init__(self, context: StepContext, clock: FakeClock) -> None:
        self.context, self.clock = context, clock
        self.journal = context.journal
        self.gate = Gate(context, rate_limiter=RateLimiter(2, clock))
        self.inboxes = Inboxes(context, on_change=lambda: None)
        self.dispatcher = NotificationDispatcher(context, self.gate, self.inboxes)

    def add_jobs(self, *names: str, problem: Problem | None = None) -> list[Job]:
        rule = self.context.config.rules[0]
        new = [
            NewJob(rule.name, rule.inbox / name, Path(name), Stamp(n, 1, 1), sha256=name, problem=problem)
            for n, name in enumerate(names)
        ]
        return [job for job in map(self.journal.get, self.journal.add_jobs(new)) if job is not None]

    def hold_jobs(
        self, *names: str, code: ErrorCode = ErrorCode.SUBMIT_OUTCOME_UNKNOWN, message: str = "in doubt"
    ) -> None:
        for job in self.add_jobs(*names):
            self.journal.transition(job, State.HELD, message, problem=Problem(code, message))

    async def run_check(self, after: float = 0.0, *, at_once: bool = False) -> None:
        self.clock.advance(after)
        self.dispatcher.dispatch_messages(at_once=at_once)
        for _ in range(5):
            # Let the checks that it started run.
            await asyncio.sleep(0)

    async def wait_until_idle(self) -> None:
        """Wait until every message has arrived or waits for a later try."""
        await wait_until(lambda: self.dispatcher.is_idle)


def configure_notifiers(harness: Harness, *notify: dict[str, Any]) -> Config:
    harness.top_level = {**harness.top_level, "notify": list(notify)}
    return harness.load_config()


def webhook_config(webhook: WebhookReceiver, **more: Any) -> dict[str, Any]:
    return {"to": "webhook", "url": webhook.url, "timeout": 20, **more}


@asynccontextmanager
async def running_dispatcher(
    harness: Harness, config: Config, clock: FakeClock | None = None, *, crash: bool = False
) -> AsyncIterator[DispatcherHarness]:
    clock = clock or FakeClock()
    async with open_step_context(config, clock) as context:
        active = DispatcherHarness(context, clock)
        await active.run_check()
        try:
            yield active
        finally:
            if not crash:
                await active.dispatcher.close(0.0, asyncio.Event())
            active.dispatcher.stop()
            await asyncio.sleep(0)


@pytest.fixture
def webhook_receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as listening:
        yield listening


async def test_five_hundred_images_in_a_minute_are_one_message_with_the_first_names(
    harness: Harness, webhook_receiver: WebhookReceiver
) -> None:
    async with running_dispatcher(harness, configure_notifiers(harness, webhook_config(webhook_receiver))) as active:
        problem = Problem(ErrorCode.TRUNCATED, "it ends too early")
        active.add_jobs(*(f"{n}.jpg" for n in range(300)), problem=problem)
        await active.run_check(after=30)
        active.add_jobs(*(f"{n}.jpg" for n in range(300, 500)), problem=problem)
        await active.run_check(after=29)
        await active.wait_until_idle()
        assert webhook_receiver.requests == []
        await active.run_check(after=2)
        await active.run_check(after=120)
        await active.wait_until_idle()
    [message] = webhook_receiver.requests
    assert message["subject"] == "500 images are rejected"
    assert (message["event"], message["count"], message["codes"]) == ("rejected", 500, {"truncated": 500})
    assert [each["file"] for each in message["jobs"]] == [f"{n}.jpg" for n in range(5)]
    assert "- 0.jpg (job 1, rule scans): it ends too early" in message["text"]
    assert "- and 495 more" in message["text"]
    assert "`picwish-watchd jobs --state rejected`" in message["text"]


async def test_a_message_on_a_held_image_says_what_where_and_what_to_do(
    harness: Harness, webhook_receiver: WebhookReceiver
) -> None:
    async with running_dispatcher(harness, configure_notifiers(harness, webhook_config(webhook_receiver))) as active:
        active.hold_jobs("Été \n\x1b[31m.jpg", message="see https://cdn.example.org/r?sig=secret\nfor it")
        await active.run_check()
        await active.run_check(after=61)
        await active.wait_until_idle()
    [message] = webhook_receiver.requests
    assert message["subject"] == "Été \\n\\x1b[31m.jpg is held"
    assert message["event"] == "held"
    for words in ("submit_outcome_unknown", "see (an address) for it", "`picwish-watchd show 1`", "retry 1`"):
        assert words in message["text"]
    assert all(line.isprintable() for line in message["text"].splitlines())


async def test_a_problem_is_reported_once_an_hour_and_a_new_one_at_once(
    harness: Harness, webhook_receiver: WebhookReceiver
) -> None:
    async with running_dispatcher(harness, configure_notifiers(harness, webhook_config(webhook_receiver))) as active:
        active.hold_jobs("a.jpg")
        await active.run_check()
        await active.run_check(after=61)
        for name in ("b.jpg", "c.jpg"):
            active.hold_jobs(name)
            await active.run_check(after=600)
        active.hold_jobs("d.jpg", code=ErrorCode.RESULT_EXPIRED)
        await active.run_check()
        await active.run_check(after=61)
        await active.run_check(after=3600)
        await active.run_check(after=3600)
        await active.wait_until_idle()
    assert webhook_receiver.subjects() == ["a.jpg is held", "d.jpg is held", "2 images are held"]


async def test_a_note_on_an_ended_job_sends_no_notification(
    harness: Harness, webhook_receiver: WebhookReceiver
) -> None:
    async with running_dispatcher(harness, configure_notifiers(harness, webhook_config(webhook_receiver))) as active:
        active.hold_jobs("a.jpg")
        await active.run_check()
        await active.run_check(after=61)
        [job] = active.journal.jobs()
        active.journal.update(job, "its original was moved", note="moved")
        await active.run_check(after=7200)
        await active.run_check(after=7200)
        await active.wait_until_idle()
    assert webhook_receiver.subjects() == ["a.jpg is held"]


async def test_a_closed_gate_is_reported_once_and_its_end_once(
    harness: Harness, webhook_receiver: WebhookReceiver
) -> None:
    async with running_dispatcher(harness, configure_notifiers(harness, webhook_config(webhook_receiver))) as active:
        active.gate.close(CloseReason.API_DOWN, "not accepted: 503", trial=True)
        for _ in range(10):
            await active.run_check(after=60)
        # The first reason still exists.
        active.gate.close(CloseReason.RESULTS_UNREACHABLE, "no download", trial=True)
        await active.run_check(after=7200)
        active.gate.clear_reasons(CloseReason.API_DOWN)
        await active.run_check()
        await active.run_check(after=61)
        await active.run_check(after=7200)
        await active.wait_until_idle()
    down, results, up = webhook_receiver.accepted_requests()
    assert down["subject"] == "PicWish does not answer; nothing is being sent"
    assert "Not accepted: 503." in down["text"]
    assert (down["event"], down["over"], down["code"], down["trouble"]) == (
        "blocked",
        False,
        "api_down",
        "blocked:api_down",
    )
    assert results["subject"].startswith("Results cannot be downloaded")
    assert up["subject"] == "PicWish answers again, after 2 h 9 min"
    assert (up["event"], up["over"], up["trouble"]) == ("blocked", True, "blocked:api_down")


async def test_a_gate_that_closes_for_a_moment_is_no_news(harness: Harness, webhook_receiver: WebhookReceiver) -> None:
    async with running_dispatcher(harness, configure_notifiers(harness, webhook_config(webhook_receiver))) as active:
        for _ in range(20):
            active.gate.close(CloseReason.API_DOWN, "reset")
            await active.run_check(after=30)
            active.gate.clear_reasons(CloseReason.API_DOWN)
            await active.run_check(after=30)
        await active.wait_until_idle()
    assert webhook_receiver.requests == []


async def test_a_flapping_alert_is_sent_once_an_hour(harness: Harness, webhook_receiver: WebhookReceiver) -> None:
    async with running_dispatcher(harness, configure_notifiers(harness, webhook_config(webhook_receiver))) as active:
        # Each takes five minutes.
        for _ in range(11):
            active.gate.close(CloseReason.API_DOWN, "reset")
            await active.run_check(after=1)
            await active.run_check(after=119)
            active.gate.clear_reasons(CloseReason.API_DOWN)
            await active.run_check(after=1)
            await active.run_check(after=179)
        await active.wait_until_idle()
        assert [each["over"] for each in webhook_receiver.accepted_requests()] == [False, True]
        active.gate.close(CloseReason.API_DOWN, "reset")
        await active.run_check(after=3600)
        await active.run_check(after=61)
        await active.wait_until_idle()
    assert [each["over"] for each in webhook_receiver.accepted_requests()] == [False, True, False]


async def test_the_budget_is_reported_at_80_and_100_per_cent_and_again_tomorrow(
    harness: Harness, webhook_receiver: WebhookReceiver
) -> None:
    harness.top_level = {"budget": {"per_day": 100}}
    async with running_dispatcher(
        harness, configure_notifiers(harness, webhook_config(webhook_receiver, events=["budget"]))
    ) as active:

        async def spend(images: int) -> None:
            for job in active.add_jobs(*(f"{time.monotonic_ns()}-{n}" for n in range(images))):
                active.journal.transition(job, State.SUBMITTING, "sending", reserve=5)
            await active.run_check(after=11)

        await spend(15)
        await spend(1)
        await spend(1)
        await spend(3)
        await spend(0)
        await active.run_check(after=86400)
        await spend(16)
        await active.wait_until_idle()
    assert webhook_receiver.subjects() == [
        "80 % of the budget of 100 credits a day are used",
        "The budget of 100 credits a day is used up",
        "80 % of the budget of 100 credits a day are used",
    ]
    assert "100 of 100 credits are spent or reserved" in webhook_receiver.accepted_requests()[1]["text"]
    assert webhook_receiver.accepted_requests()[1]["percent"] == 100


async def test_the_digest_is_sent_once_a_day_and_only_with_content(
    harness: Harness, webhook_receiver: WebhookReceiver
) -> None:
    with WebhookReceiver() as always:
        clock = FakeClock(time.mktime((2027, 3, 1, 12, 0, 0, 0, 0, -1)))
        usual = webhook_config(webhook_receiver, events=["digest"])
        config = configure_notifiers(harness, usual, {**usual, "url": always.url, "digest_always": True})
        async with running_dispatcher(harness, config, clock) as active:
            # It is 07:00 then.
            await active.run_check(after=19 * 3600)
            await active.run_check(after=3600)
            await active.run_check(after=3600)
            await active.wait_until_idle()
            assert (webhook_receiver.requests, [each["subject"] for each in always.requests]) == (
                [],
                ["Daily digest: nothing new"],
            )
            active.hold_jobs("a.jpg")
            [job] = active.add_jobs("b.jpg")
            active.journal.transition(job, State.SUBMITTING, "sending", reserve=5)
            await active.run_check(after=23 * 3600)
            await active.run_check(after=60)
            await active.wait_until_idle()
    [message] = webhook_receiver.requests
    assert message["subject"] == "Daily digest: 1 held, 5 credits; 1 problem"
    assert "Since 2027-03-02 08:00: 1 held, 5 credits." in message["text"]
    assert "Credits: 0 today, 5 this month." in message["text"]
    assert "- 1 image is held: `picwish-watchd jobs --state held`" in message["text"]
    assert (message["held"], message["done"], message["credits"]) == (1, 0, 5)


@pytest.fixture
def berlin_time_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Use a time zone that skips 02:00 to 03:00 on 2027-03-28 and repeats that hour on 2027-10-31."""
    with monkeypatch.context() as there:
        there.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize("day", [(2027, 3, 27), (2027, 10, 30)])
async def test_the_digest_comes_once_on_a_day_that_skips_or_repeats_its_hour(
    harness: Harness, webhook_receiver: WebhookReceiver, berlin_time_zone: None, day: tuple[int, int, int]
) -> None:
    clock = FakeClock(time.mktime((*day, 12, 0, 0, 0, 0, -1)))
    config = configure_notifiers(
        harness, webhook_config(webhook_receiver, events=["digest"], digest_at="02:30", digest_always=True, at_most=100)
    )
    async with running_dispatcher(harness, config, clock) as active:
        counts = []
        for _ in range(48):
            await active.run_check(after=1800)
            await active.wait_until_idle()
            counts.append(len(webhook_receiver.requests))
    assert counts[-1] == 1


async def test_a_missed_digest_is_sent_once_and_covers_all_days(
    harness: Harness, webhook_receiver: WebhookReceiver
) -> None:
    clock = FakeClock(time.mktime((2027, 3, 1, 12, 0, 0, 0, 0, -1)))
    config = configure_notifiers(harness, webhook_config(webhook_receiver, events=["digest"]))
    async with running_dispatcher(harness, config, clock) as active:
        active.hold_jobs("a.jpg")
        await active.run_check(after=60)
    clock.advance(4 * 86400)
    async with running_dispatcher(harness, config, clock) as active:
        for _ in range(3):
            await active.run_check(after=60)
            await active.wait_until_idle()
    [message] = webhook_receiver.requests
    assert "Since 2027-03-01 12:00: 1 held." in message["text"]


async def test_a_flood_of_failed_images_is_one_message_and_delays_no_image(
    harness: Harness, webhook_receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("picwish_watchd.notify.dispatcher._BATCH_SIZE", 200)
    problem = Problem(ErrorCode.TRUNCATED, "it ends too early")
    async with running_dispatcher(harness, configure_notifiers(harness, webhook_config(webhook_receiver))) as active:
        active.add_jobs(*(f"{n}.jpg" for n in range(1_000)), problem=problem)
        for _ in range(5):
            before = active.dispatcher._last_seen_event
            await active.run_check(after=1)
            assert active.dispatcher._last_seen_event - before <= 200, "the next check reads the rest"
        await active.run_check(after=60)
        await active.wait_until_idle()
        active.add_jobs(*(f"{n}.png" for n in range(500)), problem=problem)
        await active.run_check(after=3600, at_once=True)
        await active.wait_until_idle()
    assert [(each["subject"], each["count"]) for each in webhook_receiver.requests] == [
        ("1,000 images are rejected", 1_000),
        ("500 images are rejected", 500),
    ]


async def test_above_the_hourly_limit_the_rest_become_one_message(
    harness: Harness, webhook_receiver: WebhookReceiver
) -> None:
    codes = list(ErrorCode)[:6]
    async with running_dispatcher(
        harness, configure_notifiers(harness, webhook_config(webhook_receiver, at_most=3))
    ) as active:
        for code in codes:
            active.hold_jobs(f"{code}.jpg", code=code)
            await active.run_check(at_once=True)
        # The worker's sleep moves the fake clock.
        await wait_until(lambda: len(webhook_receiver.requests) == 4)
        await active.wait_until_idle()
    summary = webhook_receiver.requests[-1]
    assert (summary["event"], summary["subject"]) == ("summary", "3 messages in one")
    assert summary["messages"] == {"held": 3}
    assert [f"- {code}.jpg is held" in summary["text"] for code in codes] == [False] * 3 + [True] * 3


async def test_events_that_a_notifier_does_not_list_are_not_sent(
    harness: Harness, webhook_receiver: WebhookReceiver
) -> None:
    async with running_dispatcher(
        harness, configure_notifiers(harness, webhook_config(webhook_receiver, events=["blocked"]))
    ) as active:
        active.hold_jobs("a.jpg")
        await active.run_check(at_once=True)
        active.gate.close(CloseReason.UNAUTHORIZED, "401")
        await active.run_check()
        await active.run_check(after=61)
        await active.wait_until_idle()
    assert webhook_receiver.subjects() == ["PicWish refuses the key; nothing is being sent"]


async def test_a_restart_repeats_nothing_and_loses_nothing(harness: Harness, webhook_receiver: WebhookReceiver) -> None:
    config = configure_notifiers(harness, webhook_config(webhook_receiver))
    clock = FakeClock()
    async with running_dispatcher(harness, config, clock) as active:
        active.hold_jobs("a.jpg")
        await active.run_check(at_once=True)
        await active.wait_until_idle()
        active.hold_jobs("b.jpg", code=ErrorCode.RESULT_EXPIRED)
        await active.run_check()
        # No look has been taken yet.
        active.hold_jobs("c.jpg", code=ErrorCode.TASK_UNKNOWN)
        active.gate.close(CloseReason.API_DOWN, "503")
        await active.run_check(after=61)
        await active.wait_until_idle()
    async with running_dispatcher(harness, config, clock) as active:
        await active.run_check(after=600)
        await active.run_check(after=61)
        await active.wait_until_idle()
    assert webhook_receiver.subjects()[0] == "a.jpg is held"
    names = [
        each["file"] for notice in webhook_receiver.requests if notice["event"] == "held" for each in notice["jobs"]
    ]
    assert names == ["a.jpg", "b.jpg", "c.jpg"]
    assert len({each["id"] for each in webhook_receiver.requests}) == len(webhook_receiver.requests)


async def test_after_a_restart_an_alert_clears_only_when_proved(
    harness: Harness, webhook_receiver: WebhookReceiver
) -> None:
    config, clock = configure_notifiers(harness, webhook_config(webhook_receiver)), FakeClock()
    async with running_dispatcher(harness, config, clock) as active:
        active.gate.close(CloseReason.API_DOWN, "503")
        await active.run_check()
        await active.run_check(after=61)
        await active.wait_until_idle()
    async with running_dispatcher(harness, config, clock) as active:
        await active.run_check(after=300)
        await active.run_check(after=300)
        await active.wait_until_idle()
        assert len(webhook_receiver.requests) == 1, "an untried gate proves nothing"
        [job] = active.add_jobs("a.jpg")
        active.journal.transition(job, State.DELIVERING, "its result is here")
        await active.run_check()
        await active.run_check(after=61)
        await active.wait_until_idle()
    assert webhook_receiver.subjects()[1].startswith("PicWish answers again, after 11 min")


async def test_an_unsent_message_is_sent_by_the_next_run_with_the_same_id(harness: Harness) -> None:
    with WebhookReceiver(pause=60) as slow:
        config, clock = configure_notifiers(harness, webhook_config(slow, timeout=60)), FakeClock()
        async with running_dispatcher(harness, config, clock, crash=True) as active:
            active.hold_jobs("a.jpg")
            await active.run_check(at_once=True)
            await wait_until(lambda: slow.request_headers)
        saved = json.loads(state_path(config.journal).read_text())["waiting"]
        assert [each["notice"]["subject"] for each in saved] == ["a.jpg is held"]
        slow.release.set()
        async with running_dispatcher(harness, config, clock) as active:
            await wait_until(lambda: len(slow.accepted_requests()) == 2)
    assert len({each["id"] for each in slow.requests}) == 1


@pytest.mark.parametrize(("code", "tries"), [(503, 28), (500, 5)])
async def test_a_message_that_never_goes_is_dropped_with_one_line_in_the_log(
    harness: Harness, code: int, tries: int
) -> None:
    with WebhookReceiver(*[code] * 99) as broken, capture_logs() as logs:
        async with running_dispatcher(harness, configure_notifiers(harness, webhook_config(broken))) as active:
            active.hold_jobs("a.jpg")
            await active.run_check(at_once=True)
            await wait_until(lambda: any(line["event"] == "notify.failed" for line in logs))
            await active.run_check()
        assert len(broken.requests) == tries, "a message that may have arrived is not repeated for ever"
    failed = [line for line in logs if line["event"].startswith("notify.") and line["log_level"] != "debug"]
    assert [line["event"] for line in failed] == ["notify.failed"]
    assert "very-secret" not in str(logs)
    assert json.loads(state_path(harness.load_config().journal).read_text())["waiting"] == []


async def test_a_hanging_channel_delays_no_other_and_has_a_bounded_queue(
    harness: Harness, webhook_receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("picwish_watchd.notify.channel_worker.MAX_QUEUED_MESSAGES", 10)
    with WebhookReceiver(pause=60) as slow, capture_logs() as logs:
        many = {"at_most": 1000, "events": ["held"]}
        both = configure_notifiers(
            harness, webhook_config(slow, timeout=60, **many), webhook_config(webhook_receiver, **many)
        )
        async with running_dispatcher(harness, both) as active:
            for number in range(15):
                active.hold_jobs(f"{number}.jpg")
                await active.run_check(after=3601, at_once=True)
            await wait_until(lambda: len(webhook_receiver.requests) == 15)
            assert slow.requests == []
    failed = [line for line in logs if line["event"] == "notify.failed"]
    assert len(failed) == 1
    assert "10 messages are waiting already" in failed[0]["reason"]


async def test_a_reload_changes_channels_and_keeps_messages_of_those_that_stay(
    harness: Harness, webhook_receiver: WebhookReceiver
) -> None:
    with WebhookReceiver() as second:
        async with running_dispatcher(
            harness, configure_notifiers(harness, webhook_config(webhook_receiver))
        ) as active:
            active.context.config = configure_notifiers(
                harness, webhook_config(second), webhook_config(webhook_receiver, events=["held"])
            )
            active.hold_jobs("a.jpg")
            await active.run_check(at_once=True)
            await active.wait_until_idle()
            active.context.config = configure_notifiers(harness, webhook_config(second))
            active.hold_jobs("b.jpg", code=ErrorCode.TASK_TIMEOUT)
            await active.run_check(at_once=True)
            await active.wait_until_idle()
            assert (webhook_receiver.subjects(), second.subjects()) == (
                ["a.jpg is held"],
                ["a.jpg is held", "b.jpg is held"],
            )
            active.context.config = configure_notifiers(harness)
            await active.run_check()
            assert not state_path(harness.load_config().journal).exists()
            active.hold_jobs("c.jpg")
            active.context.config = configure_notifiers(harness, webhook_config(webhook_receiver))
            await active.run_check(at_once=True)
            await active.wait_until_idle()
        assert webhook_receiver.subjects() == ["a.jpg is held"], "earlier events are not reported"


async def test_without_notifiers_nothing_is_stored_or_checked(harness: Harness) -> None:
    async with running_dispatcher(harness, configure_notifiers(harness)) as active:
        active.hold_jobs("a.jpg")
        await active.run_check(at_once=True)
        assert active.dispatcher.is_idle
        assert not state_path(harness.load_config().journal).exists()


def state_file_text(**more: object) -> str:
    """Return the text of a state file with some keys replaced."""
    none: dict[str, object] = {name: {} for name in ("groups", "told", "open", "spent", "digests")}
    return json.dumps({"event": 0, **none, "waiting": [], **more})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"event": "x"}',
        '{"event": 1, "groups": {"a": {"b": 1}}}',
        state_file_text(groups={"held/x": {"since": "long", "first": 1, "last": 1}}),
        state_file_text(open={"blocked:x": {"since": None}}),
        state_file_text(digests={"08:00": {"day": 1, "at": 0, "event": 0}}),
        state_file_text(
            waiting=[{"notice": {"id": 1, "event": "held", "at": 0, "subject": "s", "text": "t"}, "to": ["a"]}]
        ),
        state_file_text(
            waiting=[{"notice": {"id": "1", "event": "held", "at": 0, "subject": "s", "text": "t"}, "to": [1]}]
        ),
    ],
)
async def test_an_unreadable_state_file_is_replaced(
    harness: Harness, webhook_receiver: WebhookReceiver, content: str
) -> None:
    config = configure_notifiers(harness, webhook_config(webhook_receiver))
    place = state_path(config.journal)
    place.parent.mkdir()
    place.write_text(content)
    async with running_dispatcher(harness, config) as active:
        active.hold_jobs("a.jpg")
        await active.run_check(at_once=True)
        await active.wait_until_idle()
    assert webhook_receiver.subjects() == ["a.jpg is held"]
    assert place.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("suffix", ["", ".new"])
async def test_a_pipe_as_state_file_blocks_nothing(
    harness: Harness, webhook_receiver: WebhookReceiver, suffix: str
) -> None:
    config = configure_notifiers(harness, webhook_config(webhook_receiver))
    place = state_path(config.journal)
    place.parent.mkdir()
    os.mkfifo(f"{place}{suffix}")
    async with running_dispatcher(harness, config) as active:
        active.hold_jobs("a.jpg")
        await active.run_check(at_once=True)
        await active.wait_until_idle()
    assert webhook_receiver.subjects() == ["a.jpg is held"]


async def test_a_file_that_cannot_be_kept_costs_no_message(harness: Harness, webhook_receiver: WebhookReceiver) -> None:
    config = configure_notifiers(harness, webhook_config(webhook_receiver))
    place = state_path(config.journal)
    with capture_logs() as logs:
        async with running_dispatcher(harness, config) as active:
            place.unlink(missing_ok=True)
            place.mkdir()
            active.hold_jobs("a.jpg")
            await active.run_check(at_once=True)
            await active.run_check(after=1)
            await active.wait_until_idle()
    assert webhook_receiver.subjects() == ["a.jpg is held"]
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["notify.not_kept"]


async def test_a_restored_older_journal_is_reported_from_its_last_line(
    harness: Harness, webhook_receiver: WebhookReceiver
) -> None:
    config = configure_notifiers(harness, webhook_config(webhook_receiver))
    async with running_dispatcher(harness, config):
        pass
    place = state_path(config.journal)
    saved = json.loads(place.read_text())
    place.write_text(json.dumps({**saved, "event": 10**6}))
    async with running_dispatcher(harness, config) as active:
        active.hold_jobs("a.jpg")
        await active.run_check(at_once=True)
        await active.wait_until_idle()
    assert webhook_receiver.subjects() == ["a.jpg is held"]
