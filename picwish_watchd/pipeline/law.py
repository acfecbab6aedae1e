"""How long PicWish works on a task: learnt from the last ones, so that a query comes when it is likely to be answered.

The times are taken as lognormal, as measured in public for this endpoint: a 350 px image took about 8 s from submission
to download. Median and spread are estimated by quantiles, so that a few slow tasks change little.
"""

import math
from collections import deque
from collections.abc import Iterable
from statistics import NormalDist, quantiles

_PRIOR_MEDIAN = 8.0  # seconds
_PRIOR_SIGMA = 0.3
_MEMORY = 200  # tasks
_ENOUGH = 8  # fewer say nothing yet about the spread
_SIGMA_MIN, _SIGMA_MAX = 0.1, 1.5
_NORMAL = NormalDist()


class Law:
    """The processing times of one ``type``; all times in seconds since submission."""

    def __init__(self, newest_first: Iterable[float] = ()) -> None:
        self._seconds = deque(list(newest_first)[:_MEMORY][::-1], maxlen=_MEMORY)
        self._fit()

    def learn(self, seconds: float) -> None:
        """A task was done so long after its submission."""
        self._seconds.append(seconds)
        self._fit()

    def quantile(self, share: float) -> float:
        """The time by which ``share`` (0 to 1, exclusive) of all tasks are done."""
        return math.exp(self._mu + self._sigma * _NORMAL.inv_cdf(share))

    def done_by(self, age: float) -> float:
        """The share of tasks that are done ``age`` seconds after their submission."""
        return 0.0 if age <= 0 else _NORMAL.cdf((math.log(age) - self._mu) / self._sigma)

    def next_query(self, open_at: float) -> float:
        """The age at which a task that was not done at age ``open_at`` is as likely done as not.

        Before anything is learnt, sooner: a few early queries of the first tasks are the price of the law.
        """
        share = self.done_by(open_at)
        if share > 0.995:  # it obeys no law any more: ask ever more seldom
            return open_at * 1.25
        likely = max(open_at + 0.02 * self.quantile(0.5), self.quantile(share + (1 - share) / 2))
        return likely if len(self._seconds) >= _ENOUGH else min(likely, max(0.25, open_at * 1.4))

    def _fit(self) -> None:
        known = [math.log(max(0.001, seconds)) for seconds in self._seconds]
        if len(known) < _ENOUGH:
            prior = [math.log(_PRIOR_MEDIAN) + z * _PRIOR_SIGMA for z in (-1.15, -0.67, -0.32, 0.0, 0.32, 0.67, 1.15)]
            known = prior + known * 2
        low, mid, high = quantiles(known, n=4)
        self._mu = mid
        self._sigma = min(_SIGMA_MAX, max(_SIGMA_MIN, (high - low) / 1.349))
