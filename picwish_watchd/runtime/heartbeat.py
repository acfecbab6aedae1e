"""Detect a loop of the daemon that no longer runs. Systemd's watchdog is fed only while no loop is overdue."""

from picwish_watchd.clock import Clock

# Seconds until the next beat. An idle loop reads the journal every 5 s at the latest, a busy one more often.
_BEAT_TIMEOUT = 10.0


class Heartbeat:
    """The time by which each loop has promised its next beat.

    A job, a folder or a mount that hangs does not show here, and must not: each has a task or a thread of its own and
    delays nothing else.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due_at: dict[str, float] = {}

    def beat(self, loop: str, *, within: float = _BEAT_TIMEOUT) -> None:
        """Record that ``loop`` runs now and promises to beat again within ``within`` seconds."""
        self._due_at[loop] = self._clock.monotonic() + within

    def overdue(self, grace: float) -> list[str]:
        """Return the loops whose next beat is more than ``grace`` seconds overdue, sorted by name."""
        now = self._clock.monotonic()
        return sorted(loop for loop, due in self._due_at.items() if now > due + grace)
