"""The rate at which requests are asked of PicWish: its beat, and how it comes back after a 429."""

#: Exactly 1/QPS let three requests into one second by the jitter of timers and lines. With 2 to 2.5 % more one may be
#: 20 ms faster on its way than the one that it must not meet; as much again would cost a batch as much.
#: the beat of slots, in 1/rate
INTERVAL_MARGIN = 1.025
#: the rate after a 429, of what it was
THROTTLE_FACTOR = 0.7
# of QPS, a second, up to nearly the rate that was too much
_RECOVERY_PER_SECOND = 0.01
_CAUTIOUS_SHARE = 0.97
# of QPS, times the seconds squared: from there on carefully at first, then ever bolder
_CAUTIOUS_ACCELERATION = 3e-5


def max_per_second(qps: float) -> int:
    """So many requests never exceed ``qps`` in any second; below 1, in 1/``qps`` seconds. Not 3 for 2.7."""
    return max(1, int(qps))


def recovered_rate(qps: float, lowered: float, seconds: float) -> float:
    """The rate (requests a second), so many seconds after a 429 had it lowered; never above ``qps``.

    It stays for a while just below what was too much: a jittery line, or another program, will hardly have changed.
    """
    nearly = lowered / THROTTLE_FACTOR * _CAUTIOUS_SHARE
    reached = (nearly - lowered) / (qps * _RECOVERY_PER_SECOND)
    if seconds < reached:
        return min(qps, lowered + qps * _RECOVERY_PER_SECOND * max(0.0, seconds))
    return min(qps, nearly + qps * _CAUTIOUS_ACCELERATION * (seconds - reached) ** 2)
