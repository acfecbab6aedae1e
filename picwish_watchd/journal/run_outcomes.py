"""Count how the jobs of one run have ended, without reading the whole run again each time."""

from collections import Counter

from picwish_watchd.journal.job_counts import FetchRows
from picwish_watchd.state import UNFINISHED, State

_CHANGED_JOBS_SQL = "SELECT id, state FROM job WHERE id IN (SELECT job FROM event WHERE id > ?)"


class RunOutcomes:
    """The jobs that have ended and have an event after ``event``, the last one before the run."""

    def __init__(self, event: int) -> None:
        self.event = event
        # The last event that is taken into account.
        self._last_event_id = event
        self._states: dict[int, State] = {}
        self._counts: Counter[State] = Counter()

    def count_ended(self, last_event_id: int, fetch_rows: FetchRows) -> Counter[State]:
        """Return the number of these jobs by state, as of ``last_event_id``, the newest event of the journal.

        Only jobs with an event since the last call are looked up.
        """
        if last_event_id != self._last_event_id:
            for job_id, state in fetch_rows(_CHANGED_JOBS_SQL, (self._last_event_id,)):
                self._set_state(job_id, State(state))
            self._last_event_id = last_event_id
        return +self._counts

    def _set_state(self, job_id: int, state: State) -> None:
        before = self._states.pop(job_id, None)
        if before is not None:
            self._counts[before] -= 1
        if state not in UNFINISHED:
            self._states[job_id] = state
            self._counts[state] += 1
