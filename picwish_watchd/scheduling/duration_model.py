"""Predict how long PicWish works on a task, so that a query comes when the task is probably done.

The durations are modelled as lognormal, as public measurements of this endpoint suggest: a 350 px image took about 8 s
from submission to download. Median and spread are estimated by quantiles, so that a few unusual tasks change little.
Several tasks in a row that are all unlike the model begin a new model: a slow spell has begun or ended.

When to query is a problem of optimum checking: queries are the denser the more likely a task ends just then, with a
density proportional to the square root of the hazard rate (Barlow, Hunter, Proschan 1963; Keller 1974). With the cost
below, that means 4.4 queries for 0.55 s of added latency; a query every second means 8.9 for 0.5 s (see
tests/unit/scheduling).
"""

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from functools import cache, lru_cache
from itertools import pairwise

# The durations before anything is learned: median in seconds, and sigma of the logarithm.
_PRIOR_MEDIAN = 8.0
_PRIOR_SIGMA = 0.3
# Tasks that are remembered.
_MAX_SAMPLES = 200
# Tasks below which the spread is not estimated. As many outliers in a row begin a new model.
_MIN_SAMPLES = 8
# Tasks from which on the estimated spread replaces the prior one.
_CONFIDENT_SAMPLES = 50
# The share of tasks at either end that count as outliers.
_OUTLIER_SHARE = 0.1
# Limits of the estimated sigma.
_SIGMA_MIN, _SIGMA_MAX = 0.1, 1.0
# Seconds of latency that a query costs, at a median of `_PRIOR_MEDIAN`; it grows with the square root of the median.
_QUERY_COST = 0.15
# The share of tasks that follow a wider distribution. Without it, a slow task would be queried without end.
_STRAY_SHARE = 0.05
# How much larger their sigma is.
_STRAY_EXTRA_SIGMA = 0.8
# Beyond the 99 % point, the age at each query is at least this many times the age at the one before.
_TAIL_GROWTH = 1.15
# Seconds. The age at the first query before anything is learned.
_FIRST_POLL_AGE = 0.25
# Seconds. Tasks that take longer do not raise the limit further, because their results are kept for one hour only.
_COLLECT_SECONDS = 1200.0
# Limits of the number of tasks at PicWish at once.
_MIN_PENDING, _MAX_PENDING = 4, 5000
# Seconds by which PicWish's times may differ from observations here: latency, and times cut off to whole seconds.
_CLOCK_TOLERANCE = 1.0
# After a contradiction, PicWish's durations count again once this many tasks, observed unfinished, agree with them.
_PROOFS_TO_TRUST = 3
# Sigmas. Only 1e-19 of a normal distribution is beyond that.
_MAX_SIGMAS = 9.0


def normal_cdf(z: float) -> float:
    """Return the share of a standard normal distribution below ``z``."""
    return 0.5 * math.erfc(-z / math.sqrt(2))


# The same few quantiles are needed again and again.
@lru_cache(maxsize=64)
def normal_quantile(share: float) -> float:
    """Return the ``z`` below which ``share`` (0 to 1, exclusive) of a standard normal distribution is.

    The module `statistics` has both functions, but loading it takes a tenth of the time that `status` may take to
    start beside the interpreter.
    """
    low, high = -_MAX_SIGMAS, _MAX_SIGMAS
    # 60 bisections are exact to the last bit.
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if normal_cdf(middle) < share else (low, middle)
    return (low + high) / 2


_PRIOR_P99 = _PRIOR_MEDIAN * math.exp(_PRIOR_SIGMA * normal_quantile(0.99))


class DurationModel:
    """The distribution of the durations of one task type. All times are in seconds since submission."""

    def __init__(self, newest_first: Iterable[float] = ()) -> None:
        """Learn from earlier durations, of which the newest is first."""
        self._durations: deque[float] = deque(maxlen=_MAX_SAMPLES)
        # For each of the last tasks: -1 if it was an outlier on the fast side, 1 on the slow side, else 0.
        self._outlier_signs: deque[int] = deque(maxlen=_MIN_SAMPLES)
        # Number of durations that were known only as an interval.
        self._interval_count = 0
        # Number of agreeing tasks until PicWish's durations count again.
        self._proofs_needed = 0
        self._fit()
        for seconds in [seconds for seconds, _ in zip(newest_first, range(_MAX_SAMPLES), strict=False)][::-1]:
            self.observe(seconds)

    def observe(self, seconds: float) -> None:
        """Learn that a task was done ``seconds`` after its submission."""
        share = self.share_done(seconds)
        self._outlier_signs.append((share > 1 - _OUTLIER_SHARE) - (share < _OUTLIER_SHARE))
        self._durations.append(seconds)
        if abs(sum(self._outlier_signs)) == _MIN_SAMPLES:
            self._durations = deque(list(self._durations)[-_MIN_SAMPLES:], maxlen=_MAX_SAMPLES)
            self._outlier_signs.clear()
        self._fit()

    def estimate_duration(self, open_at: float, done_at: float, reported: float | None) -> float:
        """Return the likely duration of a task that was unfinished at age ``open_at`` and done at age ``done_at``.

        ``reported`` is PicWish's own figure, or None. It counts as far as it agrees with the two ages. After a
        contradiction it does not count for a while, because a task that was observed only once, and late, agrees with
        nearly any figure.
        """
        if reported is not None:
            agrees = reported >= 0 and reported - _CLOCK_TOLERANCE <= done_at and reported + _CLOCK_TOLERANCE >= open_at
            if not agrees:
                self._proofs_needed = _PROOFS_TO_TRUST
            elif self._proofs_needed == 0:
                # A whole number may have been cut off.
                rounding = _CLOCK_TOLERANCE if reported.is_integer() else 0.0
                low, high = max(open_at, reported - rounding), min(done_at, reported + rounding)
                return self.spread_within(low, high) if low < high else min(max(open_at, reported), done_at)
            elif open_at > 0:
                self._proofs_needed -= 1
        if done_at <= 0:
            # Nothing is known, because a clock was set back meanwhile.
            return self.quantile(0.5)
        return self.spread_within(open_at, done_at) if open_at < done_at else done_at

    def spread_within(self, low: float, high: float) -> float:
        """Return a likely duration of a task that took longer than ``low`` and not longer than ``high``.

        The results are spread over the interval as the model predicts, so that such tasks neither narrow the model nor
        shift it to the moments at which they happened to be queried.
        """
        self._interval_count += 1
        # Multiples of the golden ratio are evenly spread, whatever their number.
        part = (self._interval_count * 0.6180339887) % 1.0
        below, above = self.share_done(low), self.share_done(high)
        share = below + part * (above - below)
        if not 1e-9 < share < 1 - 1e-9:
            return low + part * (high - low)
        return min(high, max(low, self.quantile(share)))

    def quantile(self, share: float) -> float:
        """Return the age at which ``share`` (0 to 1, exclusive) of all tasks are done."""
        return math.exp(self._mu + self._sigma * normal_quantile(share))

    @property
    def p99(self) -> float:
        """The age at which 99 % of all tasks are done; until many tasks are known, at least the prior value.

        Of tasks that were submitted together the quickest end first, so the distribution looks narrower than it is.
        """
        longest = max(self._durations, default=_PRIOR_P99)
        # Between two models the spread looks too large.
        learned = min(self.quantile(0.99), 2 * max(longest, _PRIOR_MEDIAN))
        return learned if len(self._durations) >= _CONFIDENT_SAMPLES else max(learned, _PRIOR_P99)

    def share_done(self, age: float) -> float:
        """Return the share of tasks that are done at ``age``."""
        return 0.0 if age <= 0 else normal_cdf((math.log(age) - self._mu) / self._sigma)

    def probability_done(self, open_at: float, age: float) -> float:
        """Return how likely (0 to 1) a task that was not done at age ``open_at`` is done at ``age``."""
        median = math.exp(self._mu)
        before, now = _survival(open_at / median, self._sigma), _survival(age / median, self._sigma)
        return 1 - now / before if before > 0 else 0.0

    def next_poll_age(self, open_at: float) -> float:
        """Return the age at which to query a task next that was not done at age ``open_at``.

        Before anything is learned it is lower, because the model needs a few early queries of the first tasks.
        """
        median = math.exp(self._mu)
        step = math.sqrt(2 * _QUERY_COST / math.sqrt(_PRIOR_MEDIAN * median))
        ages, density = _poll_density(round(self._sigma, 2))
        next_age = _interpolate(_interpolate(open_at / median, ages, density) + step, density, ages) * median
        if open_at > self.quantile(0.99):
            next_age = max(next_age, open_at * _TAIL_GROWTH)
        next_age = max(next_age, open_at * 1.001 + 0.001)
        if len(self._durations) >= _MIN_SAMPLES:
            return next_age
        first = max(_FIRST_POLL_AGE, min(self._durations, default=0.0) / 2)
        return min(next_age, max(first, open_at * 1.4))

    def _fit(self) -> None:
        """Set the parameters: the mean and the standard deviation of the logarithm of the durations."""
        logs = [math.log(max(0.001, seconds)) for seconds in self._durations]
        if len(logs) < _MIN_SAMPLES:
            # Add the octiles of the prior distribution as samples; a learned duration counts twice.
            prior = [math.log(_PRIOR_MEDIAN) + z * _PRIOR_SIGMA for z in (-1.15, -0.67, -0.32, 0.0, 0.32, 0.67, 1.15)]
            logs = prior + logs * 2
        low, mid, high = quartiles(logs)
        self._mu = mid
        # The interquartile range of a normal distribution is 1.349 sigmas.
        self._sigma = min(_SIGMA_MAX, max(_SIGMA_MIN, (high - low) / 1.349))


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Return the quartiles of at least two values, as `statistics.quantiles` does for a sample."""
    ranked, parts = sorted(values), len(values) + 1
    quarters = []
    for quarter in (1, 2, 3):
        upper = min(max(1, quarter * parts // 4), len(ranked) - 1)
        rest = quarter * parts - 4 * upper
        quarters.append((ranked[upper - 1] * (4 - rest) + ranked[upper] * rest) / 4)
    low, mid, high = quarters
    return low, mid, high


def max_useful_pending(qps: float, p99: float) -> int:
    """Return how many tasks at once keep ``qps`` requests busy, if 99 % of them end within ``p99`` seconds."""
    return max(_MIN_PENDING, min(_MAX_PENDING, round(qps * min(p99, _COLLECT_SECONDS))))


def _survival(age: float, sigma: float) -> float:
    """Return the share of tasks that are not done at ``age`` (in medians), with the share of the wider distribution."""
    if age <= 0:
        return 1.0
    z = -math.log(age)
    return (1 - _STRAY_SHARE) * normal_cdf(z / sigma) + _STRAY_SHARE * normal_cdf(z / (sigma + _STRAY_EXTRA_SIGMA))


@cache
def _poll_density(sigma: float) -> tuple[list[float], list[float]]:
    """Return ages (in medians), and for each the integral of the square root of the hazard rate up to it."""
    ages = [0.0] + [0.02 * 5000 ** (step / 120) for step in range(121)]
    density = [0.0]
    for earlier, later in pairwise(ages):
        hazard = math.log(_survival(earlier, sigma) / _survival(later, sigma))
        density.append(density[-1] + math.sqrt(max(1e-9, hazard) * (later - earlier)))
    return ages, density


def _interpolate(x: float, xs: list[float], ys: list[float]) -> float:
    """Return the value at ``x``, linear between two points, and beyond the last one as between the last two."""
    upper = min(max(1, bisect_right(xs, x)), len(xs) - 1)
    part = (x - xs[upper - 1]) / (xs[upper] - xs[upper - 1])
    return ys[upper - 1] + part * (ys[upper] - ys[upper - 1])
