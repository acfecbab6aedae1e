"""The backoff after failures: a pause that doubles at each one."""

#: Seconds; no pause is longer.
_BACKOFF_MAX = 300.0
#: Doublings after which the pause has reached its longest in any case.
_MAX_DOUBLINGS = 20


def backoff_delay(first: float, failures: int) -> float:
    """Return the pause (seconds) after ``failures``: ``first``, doubled at each, at most 5 minutes."""
    return min(_BACKOFF_MAX, first * 2.0 ** min(failures, _MAX_DOUBLINGS))
