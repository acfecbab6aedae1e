"""The pulse: do the loops turn that move jobs from state to state? It decides whether systemd's watchdog is fed."""

from picwish_watchd.clock import Clock

# seconds; an idle loop looks at the journal every 5 s at the latest, a busy one more often
_BEAT_TIMEOUT = 10.0


class Heartbeat:
    """When each loop is to turn again, by its own word.

    A job, a folder or a mount that hangs is not seen here, and must not be: each has a task or a thread of its own, and
    holds up nothing else.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due_at: dict[str, float] = {}

    def beat(self, loop: str, *, within: float = _BEAT_TIMEOUT) -> None:
        """``loop`` turns now, and again before ``within`` seconds are over."""
        self._due_at[loop] = self._clock.monotonic() + within

    def overdue(self, grace: float) -> list[str]:
        """The loops that should have turned more than ``grace`` seconds ago and have not."""
        now = self._clock.monotonic()
        return sorted(loop for loop, due in self._due_at.items() if now > due + grace)
