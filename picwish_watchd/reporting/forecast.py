"""How long the backlog takes and what it costs: a promise from what is learnt, or what it waits for instead."""

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
# tasks
_TASK_SAMPLE = 50
# images
_RECENT_IMAGES = 20
# of the pauses between them so many are none of the pace: a budget, a night, an outage
_IGNORED_PAUSES = 2
# nor is any that lasts so long (seconds): a small budget buys a few images a day
_MAX_PAUSE = 3600.0
# seconds after its pause until a job was tried again: till then it waits for the same
_RETRY_GRACE = 2.0
# images of a rule, the oldest: if none of the queued ones may go, the rule waits
_BACKLOG_SAMPLE = 20

#: jobs by rule and state
CountsByRule = Mapping[str, Mapping[State, int]]


class RemainingWork(NamedTuple):
    """What is left to do, in images."""

    #: queued, of rules with ``sync: 0``
    queued_async: int
    #: queued, of rules with ``sync: 1``
    queued_sync: int
    #: at PicWish
    running: int
    #: that the queued ones cost at most; copies cost nothing
    credits: int


class Throughput(NamedTuple):
    """What limits it."""

    #: requests a second
    rate: float
    #: seconds that half of the tasks need
    median_seconds: float
    #: seconds that nine tasks of ten need
    p90_seconds: float
    #: tasks at PicWish, at most
    max_pending: int
    #: seconds an image, as the last ones went while others waited: a narrow line shows there
    recent_seconds_per_image: float = 0.0


class Forecast(NamedTuple):
    """A backlog's end. ``seconds`` is None where it waits for something that no time can be given for."""

    #: queued or at PicWish; not those that wait for `approve`
    images: int
    #: images, as long as there are enough of them
    per_hour: float
    #: from now
    seconds: float | None
    #: at most
    credits: int
    #: sentences
    waits_for: tuple[str, ...]

    def render(self) -> str:
        """For people; empty without a backlog."""
        return f"{pluralize(self.images, 'image')}, {self.render_outlook()}" if self.images else self.render_outlook()

    def render_outlook(self) -> str:
        """The same beside a number that is told already."""
        waits = "; ".join(self.waits_for)
        if not self.images:
            return waits
        cost = f"at most {pluralize(self.credits, 'credit')}" if self.credits else ""
        if self.seconds is None:
            return "; ".join(filter(None, (cost, f"no end can be told, it waits: {waits}")))
        told = f"{_round_to_two_digits(self.per_hour):,} an hour: done in about {format_remaining(self.seconds)}"
        return "; ".join(filter(None, (f"{told}, {cost}" if cost else told, waits)))


def predict(
    work: RemainingWork, pace: Throughput, waits_for: Sequence[str] = (), *, collecting: bool = True
) -> Forecast:
    """A create and a query for each queued image (a create alone with ``sync: 1``), a query for each at PicWish.

    ``collecting``: whether what is at PicWish is brought home, whatever the queued ones wait for.
    """
    beat = INTERVAL_MARGIN / pace.rate
    queued = work.queued_async + work.queued_sync
    each = (2 * work.queued_async + work.queued_sync) / queued if queued else 2.0
    each = max(each * beat, pace.median_seconds / pace.max_pending, pace.recent_seconds_per_image)
    last = pace.p90_seconds if queued or work.running else 0.0
    seconds = max(queued * each + work.running * beat, queued * beat + last)
    promised = None if waits_for and (queued or not collecting) else seconds
    return Forecast(queued + work.running, 3600 / each, promised, work.credits, tuple(waits_for))


def build_forecast(
    outline: ConfigSummary,
    journal: StatusReader,
    now: float,
    *,
    counts: CountsByRule,
    rate: float,
    stopped: str | None,
    collecting: bool = True,
) -> Forecast:
    """The forecast for a journal at a moment (Unix seconds).

    ``counts``: as the journal tells them. ``rate``: requests a second at present. ``stopped``: why nothing is sent;
    ``collecting``: whether results are brought home all the same, as where only a budget is reached.
    """
    floods = journal.flood_counts()
    queued = {rule: counts.get(rule.name, {}).get(State.QUEUED, 0) - floods.get(rule.name, 0) for rule in outline.rules}
    running = sum(states.get(state, 0) for states in counts.values() for state in AT_PICWISH)
    waits = [stopped] if stopped and (any(queued.values()) or (running and not collecting)) else []
    oldest = {} if stopped else _list_oldest_queued(journal, (rule.name for rule, images in queued.items() if images))
    waits += _describe_postponed(oldest, now)
    credits = sum(PRICES[rule.type] * images for rule, images in queued.items())
    waits += [] if stopped else _describe_budget_shortfall(outline, journal, now, credits)
    work = RemainingWork(
        queued_async=sum(images for rule, images in queued.items() if not rule.sync),
        queued_sync=sum(images for rule, images in queued.items() if rule.sync),
        running=running,
        credits=credits,
    )
    lately = _measure_recent_pace(journal, [job for jobs in oldest.values() for job in jobs])
    busy = {
        rule.type for rule in outline.rules if any(counts.get(rule.name, {}).get(state) for state in _BACKLOG_STATES)
    }
    going = predict(work, _estimate_throughput(outline, journal, rate, lately, busy), waits, collecting=collecting)
    besides = (*_describe_undelivered(journal, now, counts), *_describe_floods(outline, floods))
    # told, and no part of the promise
    return going._replace(waits_for=going.waits_for + besides)


def describe_delays(journal: StatusReader, now: float, counts: CountsByRule) -> list[str]:
    """What keeps the images of a rule, or its results, where they are; as `survey` tells it beside other things."""
    oldest = _list_oldest_queued(journal, (rule for rule, states in counts.items() if states.get(State.QUEUED)))
    return [*_describe_postponed(oldest, now), *_describe_undelivered(journal, now, counts)]


def format_remaining(seconds: float) -> str:
    """A time to wait, as exact as it can be meant: "20 s", "5 min", "3 h 20 min"."""
    if seconds < 90:
        return f"{max(10, round(seconds / 10) * 10)} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def _round_to_two_digits(number: float) -> int:
    """To two digits: the law is not known better."""
    step = 10 ** max(0, len(str(int(number))) - 2)
    return int(round(number / step) * step)


def _list_oldest_queued(journal: StatusReader, rules: Iterable[str]) -> dict[str, list[BacklogItem]]:
    """The oldest queued images of each rule that has some."""
    found = {rule: journal.list_backlog(State.QUEUED, rule, _BACKLOG_SAMPLE) for rule in rules}
    return {rule: jobs for rule, jobs in found.items() if jobs}


def _describe_postponed(oldest: Mapping[str, list[BacklogItem]], now: float) -> list[str]:
    return [f"{rule}: {jobs[0].note}" for rule, jobs in oldest.items() if all(_is_waiting(job, now) for job in jobs)]


def _measure_recent_pace(journal: StatusReader, oldest: Sequence[BacklogItem]) -> float:
    """Seconds an image, of the last ones; 0 where not all of them were sent while another one waited for its turn."""
    waits_since = min((job.created_at for job in oldest if job.note is None and job.not_before is None), default=None)
    sent = journal.recent_submission_times(_RECENT_IMAGES)
    if waits_since is None or len(sent) < _RECENT_IMAGES or sent[-1] < waits_since:
        return 0.0
    pauses = sorted(max(0.0, later - earlier) for later, earlier in pairwise(sent))
    going = [pause for pause in pauses[:-_IGNORED_PAUSES] if pause < _MAX_PAUSE]
    return sum(going) / len(going) if going else 0.0


def _estimate_throughput(
    outline: ConfigSummary, journal: StatusReader, rate: float, lately: float, busy: Collection[int]
) -> Throughput:
    """``busy``: the types that have images; the others have their say only in how many tasks there may be at once."""
    laws = {
        model: DurationModel(journal.recent_task_durations(model, _TASK_SAMPLE))
        for model in {rule.type for rule in outline.rules}
    }
    at_once = outline.max_pending or max_useful_pending(outline.qps, max(law.p99 for law in laws.values()))
    asked = [laws[model] for model in busy] or list(laws.values())
    return Throughput(
        min(rate, max_per_second(outline.qps)),
        max(law.quantile(0.5) for law in asked),
        max(law.quantile(0.9) for law in asked),
        at_once,
        lately,
    )


def _is_waiting(job: BacklogItem, now: float) -> bool:
    return job.note is not None and (job.not_before or 0.0) + _RETRY_GRACE > now


def _describe_budget_shortfall(outline: ConfigSummary, journal: StatusReader, now: float, credits: int) -> list[str]:
    left = [most for most in CreditBudget(outline, now).remaining(journal) if most is not None]
    if not credits or not left or credits <= min(left):
        return []
    return [f"the budget has {pluralize(min(left), 'credit')} left; what goes beyond waits until it is renewed"]


def _describe_undelivered(journal: StatusReader, now: float, counts: CountsByRule) -> Iterator[str]:
    """What is paid and cannot be put into its outbox: where one result waits, all of the rule do."""
    for rule, states in counts.items():
        number = states.get(State.DELIVERING, 0)
        oldest = journal.list_backlog(State.DELIVERING, rule, _BACKLOG_SAMPLE) if number else []
        for one in [job for job in oldest if _is_waiting(job, now)][:1]:
            what = f"{pluralize(number, 'result')} {'waits' if number == 1 else 'wait'} to be delivered"
            yield f"{rule}: {what}: {one.note}"


def _describe_floods(outline: ConfigSummary, floods: Mapping[str, int]) -> Iterator[str]:
    """What waits for `approve`."""
    for rule in outline.rules:
        if rule.name in floods:
            yield render_approval_wait(floods[rule.name], PRICES[rule.type], rule.name)
