"""The figures in Prometheus' words (prometheus.io/docs/practices/naming). No label is a path or an address."""

import platform
from collections.abc import Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from picwish_watchd import __version__
from picwish_watchd.config.schema import Budget
from picwish_watchd.counters import CounterSnapshot, Histogram
from picwish_watchd.errors import JournalError
from picwish_watchd.job import State
from picwish_watchd.metrics.loop_state import Live
from picwish_watchd.metrics.probes import Figures, Survey
from picwish_watchd.pipeline.gate import CloseReason

_P = "picwish_watchd_"
# what counts for the rate of the key
_OURS = ("create", "query", "probe")


class Families(Collector):
    """All families; asked at each scrape, in its thread."""

    def __init__(self, survey: Survey) -> None:
        self._survey = survey

    def collect(self) -> Iterator[Metric]:
        """Those of the journal are missing while it does not answer; ``picwish_watchd_journal_up`` tells so."""
        survey, live = self._survey, self._survey.live
        about = {"version": __version__, "python": platform.python_version()}
        yield InfoMetricFamily(f"{_P}build", "The program that runs.", value=about)
        yield _gauge("start_time_seconds", "When the daemon was started (Unix time).", survey.started)
        yield from _counted(survey.counts())
        if live is None:
            return
        yield from _live(live)
        if (spool := survey.spool(live.journal)) is not None:
            yield _gauge("spool_files", "Files in the spool: paid results on their way to an outbox.", spool[0])
            yield _gauge("spool_bytes", "Bytes in the spool.", spool[1])
        try:
            figures = survey.figures(live.journal)
        except JournalError:
            yield _gauge("journal_up", "1 if the journal answers.", 0)
            return
        yield _gauge("journal_up", "1 if the journal answers.", 1)
        rules = {watch.rule for watch in live.watches}
        yield from _jobs(figures, rules, survey.now())
        yield from _credits(figures, live.config.budget)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{_P}{name}", text, value=value)


def _counted(counts: CounterSnapshot) -> Iterator[Metric]:
    text = "Requests by kind (create, query, probe, download) and HTTP code, or a word where no answer came."
    requests = CounterMetricFamily(f"{_P}requests", text, labels=("kind", "code"))
    for (kind, code), number in sorted(counts.requests.items()):
        requests.add_metric((kind, code), number)
    yield requests
    limited = sum(number for (kind, code), number in counts.requests.items() if kind in _OURS and code == "429")
    yield CounterMetricFamily(f"{_P}rate_limited", "Requests that PicWish answered with 429.", value=limited)
    text = "What was left of the hour for which PicWish keeps a result, when it was saved."
    left = HistogramMetricFamily(f"{_P}result_hour_left_seconds", text)
    left.add_metric((), _buckets(counts.result_margins), counts.result_margins.total)
    yield left
    walks = HistogramMetricFamily(f"{_P}walk_duration_seconds", "How long a walk of the inbox took.", labels=("rule",))
    for rule, histogram in sorted(counts.scan_seconds.items()):
        walks.add_metric((rule,), _buckets(histogram), histogram.total)
    yield walks


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    sums, so_far = [], 0
    bounds = map(floatToGoString, (*histogram.bounds, float("inf")))
    for bound, number in zip(bounds, histogram.counts, strict=True):
        so_far += number
        sums.append((bound, float(so_far)))
    return sums


def _live(live: Live) -> Iterator[Metric]:
    closed = GaugeMetricFamily(f"{_P}gate_closed", "1 for the reason why nothing is submitted.", labels=("code",))
    for code in CloseReason:
        closed.add_metric((code.value,), live.blocked is not None and live.blocked.code is code)
    yield closed
    watched = GaugeMetricFamily(f"{_P}inbox_watched", "1 if the inbox is watched.", labels=("rule",))
    away = GaugeMetricFamily(f"{_P}inbox_away", "1 if the inbox cannot be walked.", labels=("rule",))
    for watch in live.watches:
        watched.add_metric((watch.rule,), watch.watching)
        away.add_metric((watch.rule,), watch.away is not None)
    yield from (watched, away)


def _jobs(figures: Figures, rules: set[str], now: float) -> Iterator[Metric]:
    """Also of rules that left the configuration, as long as the journal has jobs of them."""
    found = figures.totals.jobs
    jobs = GaugeMetricFamily(f"{_P}jobs", "Jobs by rule and state.", labels=("rule", "state"))
    for rule in sorted(rules | {rule for rule, _ in found}):
        for state in State:
            jobs.add_metric((rule, state.value), found.get((rule, state), 0))
    yield jobs
    text = "Age of the rule's oldest queued job, since it was taken in; 0 if none is queued."
    oldest = GaugeMetricFamily(f"{_P}oldest_queued_job_age_seconds", text, labels=("rule",))
    for rule in sorted(rules | set(figures.oldest_queued)):
        oldest.add_metric((rule,), max(0.0, now - figures.oldest_queued.get(rule, now)))
    yield oldest
    flood = GaugeMetricFamily(
        f"{_P}flood_jobs", "Images that came in a flood and wait for `approve`.", labels=("rule",)
    )
    for rule in sorted(rules | set(figures.floods)):
        flood.add_metric((rule,), figures.floods.get(rule, 0))
    yield flood


def _credits(figures: Figures, budget: Budget) -> Iterator[Metric]:
    ledger = figures.totals.credits
    yield CounterMetricFamily(
        f"{_P}credits_spent", "Credits of successes, since the journal began.", value=ledger.spent
    )
    yield _gauge("doubtful_credits", "Credits of submissions of which nobody can know.", ledger.doubtful)
    yield _gauge("reserved_credits", "Credits of what PicWish is working on.", ledger.reserved)
    used = GaugeMetricFamily(
        f"{_P}used_credits", "Credits that count against the budget: spent, reserved, doubtful.", labels=("period",)
    )
    most = GaugeMetricFamily(f"{_P}budget_credits", "The budget, where there is one.", labels=("period",))
    left = GaugeMetricFamily(f"{_P}budget_left_credits", "What is left of the budget.", labels=("period",))
    for period, spent, limit in (("day", ledger.today, budget.per_day), ("month", ledger.month, budget.per_month)):
        used.add_metric((period,), spent)
        if limit is not None:
            most.add_metric((period,), limit)
            left.add_metric((period,), max(0, limit - spent))
    yield from (used, most, left)
