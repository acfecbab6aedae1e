"""Export the figures as Prometheus metrics (prometheus.io/docs/practices/naming). No label is a path or an address."""

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
# Kinds of requests that count for the rate limit of the key.
_API_REQUEST_KINDS = ("create", "query", "probe")


class MetricsCollector(Collector):
    """All metric families. They are collected at each scrape, in the thread that answers it."""

    def __init__(self, probe: StatusProbe) -> None:
        self._status_probe = probe

    def collect(self) -> Iterator[Metric]:
        """Yield all families. While the journal does not answer, ``journal_up`` is 0 and its families are missing."""
        probe, loop_state = self._status_probe, self._status_probe.loop_state
        build_info = {"version": __version__, "python": platform.python_version()}
        yield InfoMetricFamily(f"{_PREFIX}build", "The program that runs.", value=build_info)
        yield _build_gauge("start_time_seconds", "When the daemon was started (Unix time).", probe.started_at)
        yield from _iter_counter_metrics(probe.counter_snapshot())
        if loop_state is None:
            return
        yield from _iter_loop_metrics(loop_state)
        if (spool := probe.spool_usage(loop_state.journal)) is not None:
            yield _build_gauge("spool_files", "Files in the spool: paid results on their way to an outbox.", spool[0])
            yield _build_gauge("spool_bytes", "Bytes in the spool.", spool[1])
        try:
            figures = probe.read_journal_figures(loop_state.journal)
        except JournalError:
            yield _build_gauge("journal_up", "1 if the journal answers.", 0)
            return
        yield _build_gauge("journal_up", "1 if the journal answers.", 1)
        rules = {inbox.rule for inbox in loop_state.inboxes}
        yield from _iter_job_metrics(figures, rules, probe.now())
        yield from _iter_credit_metrics(figures, loop_state.config.budget)


def _build_gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{_PREFIX}{name}", text, value=value)


def _iter_counter_metrics(counts: CounterSnapshot) -> Iterator[Metric]:
    text = "Requests by kind (create, query, probe, download) and HTTP code, or a word if there was no answer."
    requests = CounterMetricFamily(f"{_PREFIX}requests", text, labels=("kind", "code"))
    for (kind, code), number in sorted(counts.requests.items()):
        requests.add_metric((kind, code), number)
    yield requests
    limited = sum(
        number for (kind, code), number in counts.requests.items() if kind in _API_REQUEST_KINDS and code == "429"
    )
    yield CounterMetricFamily(f"{_PREFIX}rate_limited", "Requests that PicWish answered with 429.", value=limited)
    text = "Seconds left of the hour for which PicWish keeps a result, at the moment when it was saved."
    left = HistogramMetricFamily(f"{_PREFIX}result_hour_left_seconds", text)
    left.add_metric((), _cumulative_buckets(counts.result_margins), counts.result_margins.total)
    yield left
    scans = HistogramMetricFamily(
        f"{_PREFIX}walk_duration_seconds", "Duration of a scan of the inbox.", labels=("rule",)
    )
    for rule, histogram in sorted(counts.scan_seconds.items()):
        scans.add_metric((rule,), _cumulative_buckets(histogram), histogram.total)
    yield scans


def _cumulative_buckets(histogram: Histogram) -> list[tuple[str, float]]:
    buckets, cumulative = [], 0
    bounds = map(floatToGoString, (*histogram.bounds, float("inf")))
    for bound, number in zip(bounds, histogram.counts, strict=True):
        cumulative += number
        buckets.append((bound, float(cumulative)))
    return buckets


def _iter_loop_metrics(loop_state: LoopState) -> Iterator[Metric]:
    closed = GaugeMetricFamily(
        f"{_PREFIX}gate_closed", "1 for the reason why nothing is submitted, 0 for the others.", labels=("code",)
    )
    for code in CloseReason:
        closed.add_metric((code.value,), loop_state.gate_closure is not None and loop_state.gate_closure.code is code)
    yield closed
    watched = GaugeMetricFamily(f"{_PREFIX}inbox_watched", "1 if the inbox is watched.", labels=("rule",))
    unavailable = GaugeMetricFamily(f"{_PREFIX}inbox_away", "1 if the inbox cannot be scanned.", labels=("rule",))
    for inbox in loop_state.inboxes:
        watched.add_metric((inbox.rule,), inbox.is_watching)
        unavailable.add_metric((inbox.rule,), inbox.unavailable is not None)
    yield from (watched, unavailable)


def _iter_job_metrics(figures: JournalFigures, rules: set[str], now: float) -> Iterator[Metric]:
    """Yield the families of jobs, also for rules that left the configuration while the journal has jobs of them."""
    counts = figures.totals.jobs
    jobs = GaugeMetricFamily(f"{_PREFIX}jobs", "Jobs by rule and state.", labels=("rule", "state"))
    for rule in sorted(rules | {rule for rule, _ in counts}):
        for state in State:
            jobs.add_metric((rule, state.value), counts.get((rule, state), 0))
    yield jobs
    text = "Age of the rule's oldest queued job, since it was admitted; 0 if none is queued."
    oldest = GaugeMetricFamily(f"{_PREFIX}oldest_queued_job_age_seconds", text, labels=("rule",))
    for rule in sorted(rules | set(figures.oldest_queued)):
        oldest.add_metric((rule,), max(0.0, now - figures.oldest_queued.get(rule, now)))
    yield oldest
    flood = GaugeMetricFamily(
        f"{_PREFIX}flood_jobs", "Images that a burst limit holds until `approve`.", labels=("rule",)
    )
    for rule in sorted(rules | set(figures.flood_counts)):
        flood.add_metric((rule,), figures.flood_counts.get(rule, 0))
    yield flood


def _iter_credit_metrics(figures: JournalFigures, budget: Budget) -> Iterator[Metric]:
    ledger = figures.totals.credits
    yield CounterMetricFamily(
        f"{_PREFIX}credits_spent", "Credits of successful tasks, since the journal was created.", value=ledger.spent
    )
    yield _build_gauge(
        "doubtful_credits",
        "Credits of submissions of which it is unknown whether PicWish charged them.",
        ledger.doubtful,
    )
    yield _build_gauge("reserved_credits", "Credits of tasks that PicWish is working on.", ledger.reserved)
    used = GaugeMetricFamily(
        f"{_PREFIX}used_credits",
        "Credits that count against the budget: spent, reserved, doubtful.",
        labels=("period",),
    )
    limits = GaugeMetricFamily(
        f"{_PREFIX}budget_credits", "The limit of the budget, if there is one.", labels=("period",)
    )
    left = GaugeMetricFamily(f"{_PREFIX}budget_left_credits", "Credits left in the budget.", labels=("period",))
    for period, spent, limit in (("day", ledger.today, budget.per_day), ("month", ledger.month, budget.per_month)):
        used.add_metric((period,), spent)
        if limit is not None:
            limits.add_metric((period,), limit)
            left.add_metric((period,), max(0, limit - spent))
    yield from (used, limits, left)
