"""How long PicWish works on a task: learnt from the last ones, so that a query comes when it is likely to be answered.

The times are taken as lognormal, as measured in public for this endpoint: a 350 px image took about 8 s from submission
to download. Median and spread are estimated by quantiles, so that a few strange tasks change little; several in a row
that are all unlike what is known are a new law (a slow spell, or its end).

When to ask is a matter of optimum checking: the queries are the denser the likelier a task ends just then (density
proportional to the square root of the hazard rate; Barlow, Hunter, Proschan 1963, Keller 1974). With the price below
that is 4.4 queries for 0.55 s of added latency; asking every second is 8.9 for 0.5 s (see tests/unit/pipeline).
"""

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from functools import cache, lru_cache
from itertools import pairwise

# seconds
_PRIOR_MEDIAN = 8.0
_PRIOR_SIGMA = 0.3
# tasks
_MAX_SAMPLES = 200
# fewer say nothing yet about the spread; so many in a row that are unlike the law are a new one
_MIN_SAMPLES = 8
_CONFIDENT_SAMPLES = 50
# the share of tasks, at either end, that are unlike the law
_OUTLIER_SHARE = 0.1
_SIGMA_MIN, _SIGMA_MAX = 0.1, 1.0
_QUERY_COST = (
    # seconds of latency that a query is worth, at a median of `_PRIOR_MEDIAN`; grows with its square root
    0.15
)
_STRAY_SHARE = (
    # the share of tasks that follow a wider law: without them a slow one would be asked for without end
    0.05
)
# by so much is their sigma
_STRAY_EXTRA_SIGMA = 0.8
# beyond the 99 % point each query comes at an age at least so much higher
_TAIL_GROWTH = 1.15
# seconds; before anything is learnt
_FIRST_POLL_AGE = 0.25
# seconds; of tasks that take longer no more are made at once: their results live one hour
_COLLECT_SECONDS = 1200.0
# tasks at PicWish at once
_MIN_PENDING, _MAX_PENDING = 4, 5000
_CLOCK_TOLERANCE = (
    # seconds by which PicWish's clocks may differ from what is seen from here: a line, a whole second
    1.0
)
_PROOFS_TO_TRUST = (
    # tasks that were seen unfinished and agree with what PicWish tells of them, until it is believed again
    3
)
# sigmas; beyond that lies 1e-19 of all
_MAX_SIGMAS = 9.0


def normal_cdf(z: float) -> float:
    """The share of a standard normal law that lies below ``z``."""
    return 0.5 * math.erfc(-z / math.sqrt(2))


# the same few are asked for again and again
@lru_cache(maxsize=64)
def normal_quantile(share: float) -> float:
    """The ``z`` below which ``share`` (0 to 1, exclusive) of a standard normal law lies.

    `statistics` knows both, and takes a tenth of the time to load that `status` has beside an interpreter.
    """
    low, high = -_MAX_SIGMAS, _MAX_SIGMAS
    # halves: exact to the last bit
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if normal_cdf(middle) < share else (low, middle)
    return (low + high) / 2


_PRIOR_P99 = _PRIOR_MEDIAN * math.exp(_PRIOR_SIGMA * normal_quantile(0.99))


class DurationModel:
    """The processing times of one ``type``; all times in seconds since submission."""

    def __init__(self, newest_first: Iterable[float] = ()) -> None:
        self._durations: deque[float] = deque(maxlen=_MAX_SAMPLES)
        self._outlier_signs: deque[int] = deque(
            maxlen=_MIN_SAMPLES
            # of the last ones: -1 faster than the law, 1 slower, 0 like it
        )
        # how many times lay within a wide interval
        self._interval_count = 0
        # so many proofs are wanted
        self._proofs_needed = 0
        self._fit()
        for seconds in [seconds for seconds, _ in zip(newest_first, range(_MAX_SAMPLES), strict=False)][::-1]:
            self.observe(seconds)

    def observe(self, seconds: float) -> None:
        """A task was done so long after its submission."""
        share = self.share_done(seconds)
        self._outlier_signs.append((share > 1 - _OUTLIER_SHARE) - (share < _OUTLIER_SHARE))
        self._durations.append(seconds)
        if abs(sum(self._outlier_signs)) == _MIN_SAMPLES:
            self._durations = deque(list(self._durations)[-_MIN_SAMPLES:], maxlen=_MAX_SAMPLES)
            self._outlier_signs.clear()
        self._fit()

    def estimate_duration(self, open_at: float, done_at: float, told: float | None) -> float:
        """What a task took that was last seen unfinished at one age, and done at another; ``told`` is PicWish's word.

        That is believed as far as it agrees with what was seen. Once it does not, it is not believed any more, for
        where a task is seen only once and late nearly every word would agree.
        """
        if told is not None:
            agrees = told >= 0 and told - _CLOCK_TOLERANCE <= done_at and told + _CLOCK_TOLERANCE >= open_at
            if not agrees:
                self._proofs_needed = _PROOFS_TO_TRUST
            elif self._proofs_needed == 0:
                # cut off to whole seconds
                coarse = _CLOCK_TOLERANCE if told.is_integer() else 0.0
                low, high = max(open_at, told - coarse), min(done_at, told + coarse)
                return self.spread_within(low, high) if low < high else min(max(open_at, told), done_at)
            elif open_at > 0:
                self._proofs_needed -= 1
        if done_at <= 0:
            # nothing was seen: a clock was set back meanwhile
            return self.quantile(0.5)
        return self.spread_within(open_at, done_at) if open_at < done_at else done_at

    def spread_within(self, low: float, high: float) -> float:
        """What a task took of which only that is known: longer than ``low`` and not longer than ``high``.

        Spread over the interval as the law has it, so that what is learnt from such tasks does not narrow the law or
        drag it to the moments at which they happened to be asked for.
        """
        self._interval_count += 1
        # the golden ratio: evenly spread however many there are
        part = (self._interval_count * 0.6180339887) % 1.0
        below, above = self.share_done(low), self.share_done(high)
        share = below + part * (above - below)
        if not 1e-9 < share < 1 - 1e-9:
            return low + part * (high - low)
        return min(high, max(low, self.quantile(share)))

    def quantile(self, share: float) -> float:
        """The time by which ``share`` (0 to 1, exclusive) of all tasks are done."""
        return math.exp(self._mu + self._sigma * normal_quantile(share))

    @property
    def p99(self) -> float:
        """The time by which 99 % of all tasks are done; not less than it was taken for until many are known.

        Of tasks that were begun together the quickest end first, and the law looks narrower than it is.
        """
        seen = max(self._durations, default=_PRIOR_P99)
        # between two laws the spread looks huge
        learnt = min(self.quantile(0.99), 2 * max(seen, _PRIOR_MEDIAN))
        return learnt if len(self._durations) >= _CONFIDENT_SAMPLES else max(learnt, _PRIOR_P99)

    def share_done(self, age: float) -> float:
        """The share of tasks that are done ``age`` seconds after their submission."""
        return 0.0 if age <= 0 else normal_cdf((math.log(age) - self._mu) / self._sigma)

    def probability_done(self, open_at: float, age: float) -> float:
        """How likely (0 to 1) a task that was not done at age ``open_at`` is done at ``age``."""
        median = math.exp(self._mu)
        before, now = _survival(open_at / median, self._sigma), _survival(age / median, self._sigma)
        return 1 - now / before if before > 0 else 0.0

    def next_poll_age(self, open_at: float) -> float:
        """The age at which to ask next for a task that was not done at age ``open_at``.

        Before anything is learnt, sooner: a few early queries of the first tasks are the price of the law.
        """
        median = math.exp(self._mu)
        step = math.sqrt(2 * _QUERY_COST / math.sqrt(_PRIOR_MEDIAN * median))
        ages, density = _poll_density(round(self._sigma, 2))
        following = _interpolate(_interpolate(open_at / median, ages, density) + step, density, ages) * median
        if open_at > self.quantile(0.99):
            following = max(following, open_at * _TAIL_GROWTH)
        following = max(following, open_at * 1.001 + 0.001)
        if len(self._durations) >= _MIN_SAMPLES:
            return following
        first = max(_FIRST_POLL_AGE, min(self._durations, default=0.0) / 2)
        return min(following, max(first, open_at * 1.4))

    def _fit(self) -> None:
        known = [math.log(max(0.001, seconds)) for seconds in self._durations]
        if len(known) < _MIN_SAMPLES:
            prior = [math.log(_PRIOR_MEDIAN) + z * _PRIOR_SIGMA for z in (-1.15, -0.67, -0.32, 0.0, 0.32, 0.67, 1.15)]
            known = prior + known * 2
        low, mid, high = quartiles(known)
        self._mu = mid
        self._sigma = min(_SIGMA_MAX, max(_SIGMA_MIN, (high - low) / 1.349))


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Of at least two values, taken as a sample of more: as `statistics.quantiles` has them."""
    ranked, parts = sorted(values), len(values) + 1
    found = []
    for quarter in (1, 2, 3):
        at = min(max(1, quarter * parts // 4), len(ranked) - 1)
        rest = quarter * parts - 4 * at
        found.append((ranked[at - 1] * (4 - rest) + ranked[at] * rest) / 4)
    low, mid, high = found
    return low, mid, high


def max_useful_pending(qps: float, longest: float) -> int:
    """How many tasks at PicWish at once keep all requests busy, where 99 % of them end within ``longest`` seconds."""
    return max(_MIN_PENDING, min(_MAX_PENDING, round(qps * min(longest, _COLLECT_SECONDS))))


def _survival(age: float, sigma: float) -> float:
    """The share of tasks that are not done at ``age`` (in medians), strays included."""
    if age <= 0:
        return 1.0
    z = -math.log(age)
    return (1 - _STRAY_SHARE) * normal_cdf(z / sigma) + _STRAY_SHARE * normal_cdf(z / (sigma + _STRAY_EXTRA_SIGMA))


@cache
def _poll_density(sigma: float) -> tuple[list[float], list[float]]:
    """Ages (in medians), and for each the integral up to it of the square root of the hazard rate."""
    ages = [0.0] + [0.02 * 5000 ** (step / 120) for step in range(121)]
    density = [0.0]
    for earlier, later in pairwise(ages):
        ended = math.log(_survival(earlier, sigma) / _survival(later, sigma))
        density.append(density[-1] + math.sqrt(max(1e-9, ended) * (later - earlier)))
    return ages, density


def _interpolate(at: float, known: list[float], wanted: list[float]) -> float:
    """Linear between two points, and beyond the last one as between the last two."""
    upper = min(max(1, bisect_right(known, at)), len(known) - 1)
    part = (at - known[upper - 1]) / (known[upper] - known[upper - 1])
    return wanted[upper - 1] + part * (wanted[upper] - wanted[upper - 1])
