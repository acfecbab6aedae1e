"""How the jobs of one run have ended, without a look at all that has happened in it each time somebody asks."""

from collections import Counter

from picwish_watchd.journal.job_counts import Ask
from picwish_watchd.state import UNFINISHED, State

_TOUCHED = "SELECT id, state FROM job WHERE id IN (SELECT job FROM event WHERE id > ?)"


class Since:
    """The jobs that have ended and have a line of history after line ``event``."""

    def __init__(self, event: int) -> None:
        self.event = event
        # the last line that is known
        self._upto = event
        self._states: dict[int, State] = {}
        self._counts: Counter[State] = Counter()

    def ended(self, last: int, ask: Ask) -> Counter[State]:
        """Their number by state, where line ``last`` is the last one; only jobs with a later line are looked up."""
        if last != self._upto:
            for job_id, state in ask(_TOUCHED, (self._upto,)):
                self._put(job_id, State(state))
            self._upto = last
        return +self._counts

    def _put(self, job_id: int, state: State) -> None:
        before = self._states.pop(job_id, None)
        if before is not None:
            self._counts[before] -= 1
        if state not in UNFINISHED:
            self._states[job_id] = state
            self._counts[state] += 1
