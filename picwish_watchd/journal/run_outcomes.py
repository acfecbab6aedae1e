"""How the jobs of one run have ended, without a look at all that has happened in it each time somebody asks."""

from collections import Counter

from picwish_watchd.journal.job_counts import FetchRows
from picwish_watchd.state import UNFINISHED, State

_CHANGED_JOBS_SQL = "SELECT id, state FROM job WHERE id IN (SELECT job FROM event WHERE id > ?)"


class RunOutcomes:
    """The jobs that have ended and have a line of history after line ``event``."""

    def __init__(self, event: int) -> None:
        self.event = event
        # the last line that is known
        self._last_event_id = event
        self._states: dict[int, State] = {}
        self._counts: Counter[State] = Counter()

    def count_ended(self, last: int, ask: FetchRows) -> Counter[State]:
        """Their number by state, where line ``last`` is the last one; only jobs with a later line are looked up."""
        if last != self._last_event_id:
            for job_id, state in ask(_CHANGED_JOBS_SQL, (self._last_event_id,)):
                self._set_state(job_id, State(state))
            self._last_event_id = last
        return +self._counts

    def _set_state(self, job_id: int, state: State) -> None:
        before = self._states.pop(job_id, None)
        if before is not None:
            self._counts[before] -= 1
        if state not in UNFINISHED:
            self._states[job_id] = state
            self._counts[state] += 1
