"""The rate of requests to PicWish: the interval between them, and the recovery after a 429."""

#: The interval between permits, in units of 1/rate. At exactly 1/rate, the jitter of timers and connections would let
#: three requests into one second at ``qps: 2``. With 2.5 % more, a request may travel 20 ms faster than the one whose
#: second it must not enter. Another 2.5 % would cost a batch as much in throughput.
INTERVAL_MARGIN = 1.025
#: The rate after a 429, as a share of the rate before it.
THROTTLE_FACTOR = 0.7

# Recovery in shares of QPS per second, up to `_CAUTIOUS_SHARE` of the rate that was too high.
_RECOVERY_PER_SECOND = 0.01
_CAUTIOUS_SHARE = 0.97
# Recovery beyond that, in shares of QPS times seconds squared: slow at first, then faster and faster.
_CAUTIOUS_ACCELERATION = 3e-5


def max_per_second(qps: float) -> int:
    """Return how many requests never exceed ``qps`` in any second (below 1: in any 1/``qps`` seconds); 2 for 2.7."""
    return max(1, int(qps))


def recovered_rate(qps: float, lowered: float, seconds: float) -> float:
    """Return the rate (requests a second) ``seconds`` after a 429 lowered it to ``lowered``; at most ``qps``.

    It stays for a while just below the rate that was too high: the cause, a connection with jitter or another program
    with the same key, has probably not gone.
    """
    cautious_rate = lowered / THROTTLE_FACTOR * _CAUTIOUS_SHARE
    cautious_after = (cautious_rate - lowered) / (qps * _RECOVERY_PER_SECOND)
    if seconds < cautious_after:
        return min(qps, lowered + qps * _RECOVERY_PER_SECOND * max(0.0, seconds))
    return min(qps, cautious_rate + qps * _CAUTIOUS_ACCELERATION * (seconds - cautious_after) ** 2)
