"""Predict how long the backlog takes and what it costs, or name what it waits for where no end can be known."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from picwish_watchd.config.summary import ConfigSummary
from picwish_watchd.journal.status_reader import BacklogItem, StatusReader
from picwish_watchd.pricing import PRICES
from picwish_watchd.scheduling.credit_budget import CreditBudget
from picwish_watchd.scheduling.duration_model import DurationModel, max_useful_pending
from picwish_watchd.scheduling.rate import INTERVAL_MARGIN, max_per_second
from picwish_watchd.state import AT_PICWISH, State
from picwish_watchd.wording import pluralize, render_approval_wait

_BACKLOG_STATES = (State.QUEUED, *AT_PICWISH)
# Tasks whose durations are used.
_TASK_SAMPLE = 50
# Images whose times of submission are used.
_RECENT_IMAGES = 20
# The longest pauses between them that do not count as pace: a budget, a night, an outage.
_IGNORED_PAUSES = 2
# Seconds; no pause of this length counts as pace: a small budget pays for a few images a day.
_MAX_PAUSE = 3600.0
# Seconds that a job may need to be tried again after its pause; until then it waits for the same reason.
_RETRY_GRACE = 2.0
# The oldest queued images of a rule that are looked at: if none of them may be sent, the rule waits.
_BACKLOG_SAMPLE = 20

#: Numbers of jobs by rule and state.
CountsByRule = Mapping[str, Mapping[State, int]]


class RemainingWork(NamedTuple):
    """The work that is left, in images."""

    #: Queued, of rules with ``sync: 0``.
    queued_async: int
    #: Queued, of rules with ``sync: 1``.
    queued_sync: int
    #: At PicWish.
    running: int
    #: Credits that the queued images cost at most; copies cost nothing.
    credits: int


class Throughput(NamedTuple):
    """What limits the pace."""

    #: Requests a second.
    rate: float
    #: Seconds in which half of the tasks are done.
    median_seconds: float
    #: Seconds in which nine tasks of ten are done.
    p90_seconds: float
    #: Most tasks at PicWish at once.
    max_pending: int
    #: Seconds for each of the last images while others waited: it shows a slow network.
    recent_seconds_per_image: float = 0.0


class Forecast(NamedTuple):
    """The end and the cost of a backlog."""

    #: Queued or at PicWish; not those that wait for `approve`.
    images: int
    #: Images an hour, as long as enough are left.
    per_hour: float
    #: Seconds from now; None where the backlog waits for something whose end cannot be known.
    seconds: float | None
    #: Credits, at most.
    credits: int
    #: Sentences.
    waits_for: tuple[str, ...]

    def render(self) -> str:
        """Return the forecast for people; empty where there is no backlog and nothing waits."""
        return f"{pluralize(self.images, 'image')}, {self.render_outlook()}" if self.images else self.render_outlook()

    def render_outlook(self) -> str:
        """Return the end, the cost and what is waited for, without the number of images."""
        waits = "; ".join(self.waits_for)
        if not self.images:
            return waits
        cost = f"at most {pluralize(self.credits, 'credit')}" if self.credits else ""
        if self.seconds is None:
            return "; ".join(filter(None, (cost, f"no end can be predicted, it waits: {waits}")))
        pace = f"{_round_to_two_digits(self.per_hour):,} an hour: done in about {format_remaining(self.seconds)}"
        return "; ".join(filter(None, (f"{pace}, {cost}" if cost else pace, waits)))


def predict(
    work: RemainingWork, pace: Throughput, waits_for: Sequence[str] = (), *, collecting: bool = True
) -> Forecast:
    """Predict the end of the work at this pace.

    A queued image needs a create and a query, with ``sync: 1`` a create alone; an image at PicWish needs a query.
    ``collecting`` tells whether results are collected although queued images wait.
    """
    interval = INTERVAL_MARGIN / pace.rate
    queued = work.queued_async + work.queued_sync
    requests = (2 * work.queued_async + work.queued_sync) / queued if queued else 2.0
    per_image = max(requests * interval, pace.median_seconds / pace.max_pending, pace.recent_seconds_per_image)
    last = pace.p90_seconds if queued or work.running else 0.0
    seconds = max(queued * per_image + work.running * interval, queued * interval + last)
    known_seconds = None if waits_for and (queued or not collecting) else seconds
    return Forecast(queued + work.running, 3600 / per_image, known_seconds, work.credits, tuple(waits_for))


def build_forecast(
    summary: ConfigSummary,
    journal: StatusReader,
    now: float,
    *,
    counts: CountsByRule,
    rate: float,
    stopped: str | None,
    collecting: bool = True,
) -> Forecast:
    """Return the forecast for a journal at ``now`` (Unix seconds).

    ``counts`` are the journal's counts, ``rate`` the requests a second at present. ``stopped`` is why nothing is
    submitted, or None. ``collecting`` tells whether results are collected all the same, as when only a budget is used
    up.
    """
    floods = journal.flood_counts()
    queued = {rule: counts.get(rule.name, {}).get(State.QUEUED, 0) - floods.get(rule.name, 0) for rule in summary.rules}
    running = sum(states.get(state, 0) for states in counts.values() for state in AT_PICWISH)
    waits = [stopped] if stopped and (any(queued.values()) or (running and not collecting)) else []
    oldest = {} if stopped else _list_oldest_queued(journal, (rule.name for rule, images in queued.items() if images))
    waits += _describe_postponed(oldest, now)
    credits = sum(PRICES[rule.type] * images for rule, images in queued.items())
    waits += [] if stopped else _describe_budget_shortfall(summary, journal, now, credits)
    work = RemainingWork(
        queued_async=sum(images for rule, images in queued.items() if not rule.sync),
        queued_sync=sum(images for rule, images in queued.items() if rule.sync),
        running=running,
        credits=credits,
    )
    recent_pace = _measure_recent_pace(journal, [job for jobs in oldest.values() for job in jobs])
    busy_types = {
        rule.type for rule in summary.rules if any(counts.get(rule.name, {}).get(state) for state in _BACKLOG_STATES)
    }
    forecast = predict(
        work, _estimate_throughput(summary, journal, rate, recent_pace, busy_types), waits, collecting=collecting
    )
    outside = (*_describe_undelivered(journal, now, counts), *_describe_floods(summary, floods))
    # Results and images that wait outside the backlog are named, but do not change its end.
    return forecast._replace(waits_for=forecast.waits_for + outside)


def describe_delays(journal: StatusReader, now: float, counts: CountsByRule) -> list[str]:
    """Return a sentence for each rule whose images, or results, wait for something."""
    oldest = _list_oldest_queued(journal, (rule for rule, states in counts.items() if states.get(State.QUEUED)))
    return [*_describe_postponed(oldest, now), *_describe_undelivered(journal, now, counts)]


def format_remaining(seconds: float) -> str:
    """Return a waiting time, as exact as it can be known: "20 s", "5 min", "3 h 20 min"."""
    if seconds < 90:
        return f"{max(10, round(seconds / 10) * 10)} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def _round_to_two_digits(number: float) -> int:
    """Round to two digits: the durations are not known more exactly."""
    step = 10 ** max(0, len(str(int(number))) - 2)
    return int(round(number / step) * step)


def _list_oldest_queued(journal: StatusReader, rules: Iterable[str]) -> dict[str, list[BacklogItem]]:
    """Return the oldest queued images of each rule that has some."""
    found = {rule: journal.list_backlog(State.QUEUED, rule, _BACKLOG_SAMPLE) for rule in rules}
    return {rule: jobs for rule, jobs in found.items() if jobs}


def _describe_postponed(oldest: Mapping[str, list[BacklogItem]], now: float) -> list[str]:
    return [f"{rule}: {jobs[0].note}" for rule, jobs in oldest.items() if all(_is_waiting(job, now) for job in jobs)]


def _measure_recent_pace(journal: StatusReader, oldest: Sequence[BacklogItem]) -> float:
    """Return the seconds for each of the last images; 0 where not all were sent while another image waited."""
    waits_since = min((job.created_at for job in oldest if job.note is None and job.not_before is None), default=None)
    sent = journal.recent_submission_times(_RECENT_IMAGES)
    if waits_since is None or len(sent) < _RECENT_IMAGES or sent[-1] < waits_since:
        return 0.0
    pauses = sorted(max(0.0, later - earlier) for later, earlier in pairwise(sent))
    intervals = [pause for pause in pauses[:-_IGNORED_PAUSES] if pause < _MAX_PAUSE]
    return sum(intervals) / len(intervals) if intervals else 0.0


def _estimate_throughput(
    summary: ConfigSummary, journal: StatusReader, rate: float, recent_pace: float, busy_types: Collection[int]
) -> Throughput:
    """Return what limits the pace; types that are not in ``busy_types`` count only for the number of tasks at once."""
    models = {
        task_type: DurationModel(journal.recent_task_durations(task_type, _TASK_SAMPLE))
        for task_type in {rule.type for rule in summary.rules}
    }
    max_pending = summary.max_pending or max_useful_pending(summary.qps, max(model.p99 for model in models.values()))
    busy_models = [models[task_type] for task_type in busy_types] or list(models.values())
    return Throughput(
        min(rate, max_per_second(summary.qps)),
        max(model.quantile(0.5) for model in busy_models),
        max(model.quantile(0.9) for model in busy_models),
        max_pending,
        recent_pace,
    )


def _is_waiting(job: BacklogItem, now: float) -> bool:
    return job.note is not None and (job.not_before or 0.0) + _RETRY_GRACE > now


def _describe_budget_shortfall(summary: ConfigSummary, journal: StatusReader, now: float, credits: int) -> list[str]:
    left = [remaining for remaining in CreditBudget(summary, now).remaining(journal) if remaining is not None]
    if not credits or not left or credits <= min(left):
        return []
    return [f"the budget has {pluralize(min(left), 'credit')} left; images beyond that wait until it is renewed"]


def _describe_undelivered(journal: StatusReader, now: float, counts: CountsByRule) -> Iterator[str]:
    """Yield a sentence for each rule whose paid results cannot be delivered: if one waits, all of its rule do."""
    for rule, states in counts.items():
        number = states.get(State.DELIVERING, 0)
        oldest = journal.list_backlog(State.DELIVERING, rule, _BACKLOG_SAMPLE) if number else []
        for waiting in [job for job in oldest if _is_waiting(job, now)][:1]:
            what = f"{pluralize(number, 'result')} {'waits' if number == 1 else 'wait'} to be delivered"
            yield f"{rule}: {what}: {waiting.note}"


def _describe_floods(summary: ConfigSummary, floods: Mapping[str, int]) -> Iterator[str]:
    """Yield a sentence for each rule whose images wait for `approve`."""
    for rule in summary.rules:
        if rule.name in floods:
            yield render_approval_wait(floods[rule.name], PRICES[rule.type], rule.name)
