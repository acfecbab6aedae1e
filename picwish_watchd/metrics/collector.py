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
from picwish_watchd.metrics.loop_state import LoopState
from picwish_watchd.metrics.probes import JournalFigures, StatusProbe
from picwish_watchd.pipeline.gate import CloseReason

_PREFIX = "picwish_watchd_"
# what counts for the rate of the key
_API_REQUEST_KINDS = ("create", "query", "probe")


class MetricsCollector(Collector):
    """All families; asked at each scrape, in its thread."""

    def __init__(self, survey: StatusProbe) -> None:
        self._status_probe = survey

    def collect(self) -> Iterator[Metric]:
        """Those of the journal are missing while it does not answer; ``picwish_watchd_journal_up`` tells so."""
        survey, live = self._status_probe, self._status_probe.loop_state
        about = {"version": __version__, "python": platform.python_version()}
        yield InfoMetricFamily(f"{_PREFIX}build", "The program that runs.", value=about)
        yield _build_gauge("start_time_seconds", "When the daemon was started (Unix time).", survey.started_at)
        yield from _iter_counter_metrics(survey.counter_snapshot())
        if live is None:
            return
        yield from _iter_loop_metrics(live)
        if (spool := survey.spool_usage(live.journal)) is not None:
            yield _build_gauge("spool_files", "Files in the spool: paid results on their way to an outbox.", spool[0])
            yield _build_gauge("spool_bytes", "Bytes in the spool.", spool[1])
        try:
            figures = survey.read_journal_figures(live.journal)
        except JournalError:
            yield _build_gauge("journal_up", "1 if the journal answers.", 0)
            return
        yield _build_gauge("journal_up", "1 if the journal answers.", 1)
        rules = {watch.rule for watch in live.inboxes}
        yield from _iter_job_metrics(figures, rules, survey.now())
        yield from _iter_credit_metrics(figures, live.config.budget)


def _build_gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{_PREFIX}{name}", text, value=value)


def _iter_counter_metrics(counts: CounterSnapshot) -> Iterator[Metric]:
    text = "Requests by kind (create, query, probe, download) and HTTP code, or a word where no answer came."
    requests = CounterMetricFamily(f"{_PREFIX}requests", text, labels=("kind", "code"))
    for (kind, code), number in sorted(counts.requests.items()):
        requests.add_metric((kind, code), number)
    yield requests
    limited = sum(
        number for (kind, code), number in counts.requests.items() if kind in _API_REQUEST_KINDS and code == "429"
    )
    yield CounterMetricFamily(f"{_PREFIX}rate_limited", "Requests that PicWish answered with 429.", value=limited)
    text = "What was left of the hour for which PicWish keeps a result, when it was saved."
    left = HistogramMetricFamily(f"{_PREFIX}result_hour_left_seconds", text)
    left.add_metric((), _cumulative_buckets(counts.result_margins), counts.result_margins.total)
    yield left
    walks = HistogramMetricFamily(
        f"{_PREFIX}walk_duration_seconds", "How long a walk of the inbox took.", labels=("rule",)
    )
    for rule, histogram in sorted(counts.scan_seconds.items()):
        walks.add_metric((rule,), _cumulative_buckets(histogram), histogram.total)
    yield walks


def _cumulative_buckets(histogram: Histogram) -> list[tuple[str, float]]:
    sums, so_far = [], 0
    bounds = map(floatToGoString, (*histogram.bounds, float("inf")))
    for bound, number in zip(bounds, histogram.counts, strict=True):
        so_far += number
        sums.append((bound, float(so_far)))
    return sums


def _iter_loop_metrics(live: LoopState) -> Iterator[Metric]:
    closed = GaugeMetricFamily(f"{_PREFIX}gate_closed", "1 for the reason why nothing is submitted.", labels=("code",))
    for code in CloseReason:
        closed.add_metric((code.value,), live.gate_closure is not None and live.gate_closure.code is code)
    yield closed
    watched = GaugeMetricFamily(f"{_PREFIX}inbox_watched", "1 if the inbox is watched.", labels=("rule",))
    away = GaugeMetricFamily(f"{_PREFIX}inbox_away", "1 if the inbox cannot be walked.", labels=("rule",))
    for watch in live.inboxes:
        watched.add_metric((watch.rule,), watch.is_watching)
        away.add_metric((watch.rule,), watch.unavailable is not None)
    yield from (watched, away)


def _iter_job_metrics(figures: JournalFigures, rules: set[str], now: float) -> Iterator[Metric]:
    """Also of rules that left the configuration, as long as the journal has jobs of them."""
    found = figures.totals.jobs
    jobs = GaugeMetricFamily(f"{_PREFIX}jobs", "Jobs by rule and state.", labels=("rule", "state"))
    for rule in sorted(rules | {rule for rule, _ in found}):
        for state in State:
            jobs.add_metric((rule, state.value), found.get((rule, state), 0))
    yield jobs
    text = "Age of the rule's oldest queued job, since it was taken in; 0 if none is queued."
    oldest = GaugeMetricFamily(f"{_PREFIX}oldest_queued_job_age_seconds", text, labels=("rule",))
    for rule in sorted(rules | set(figures.oldest_queued)):
        oldest.add_metric((rule,), max(0.0, now - figures.oldest_queued.get(rule, now)))
    yield oldest
    flood = GaugeMetricFamily(
        f"{_PREFIX}flood_jobs", "Images that came in a flood and wait for `approve`.", labels=("rule",)
    )
    for rule in sorted(rules | set(figures.flood_counts)):
        flood.add_metric((rule,), figures.flood_counts.get(rule, 0))
    yield flood


def _iter_credit_metrics(figures: JournalFigures, budget: Budget) -> Iterator[Metric]:
    ledger = figures.totals.credits
    yield CounterMetricFamily(
        f"{_PREFIX}credits_spent", "Credits of successes, since the journal began.", value=ledger.spent
    )
    yield _build_gauge("doubtful_credits", "Credits of submissions of which nobody can know.", ledger.doubtful)
    yield _build_gauge("reserved_credits", "Credits of what PicWish is working on.", ledger.reserved)
    used = GaugeMetricFamily(
        f"{_PREFIX}used_credits",
        "Credits that count against the budget: spent, reserved, doubtful.",
        labels=("period",),
    )
    most = GaugeMetricFamily(f"{_PREFIX}budget_credits", "The budget, where there is one.", labels=("period",))
    left = GaugeMetricFamily(f"{_PREFIX}budget_left_credits", "What is left of the budget.", labels=("period",))
    for period, spent, limit in (("day", ledger.today, budget.per_day), ("month", ledger.month, budget.per_month)):
        used.add_metric((period,), spent)
        if limit is not None:
            most.add_metric((period,), limit)
            left.add_metric((period,), max(0, limit - spent))
    yield from (used, most, left)
