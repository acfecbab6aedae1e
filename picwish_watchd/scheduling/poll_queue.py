"""Which task to ask for next, and when. Pure: times are given, in monotonic seconds."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from heapq import merge
from itertools import islice

# of the tasks that are due so many, those that were due first, are compared
_CANDIDATE_COUNT = 16
# a task of a higher priority goes before the others once it is as likely done as not
_MIN_PROBABILITY = 0.5

#: Results live one hour (API document). What may lie there for so long (seconds) is asked for before all else ...
EXPIRING_AFTER = 45 * 60.0
_TOO_LATE_AFTER = (
    59 * 60.0
    # ... the oldest first, but for those that are too late: they would make all behind them too late
)


@dataclass(slots=True)
class TrackedTask:
    """What this process knows of a task beyond the journal. ``born`` is monotonic, the ages are seconds since then."""

    id: int
    type: int
    rule: str
    born_at: float
    #: the age at which it was last seen unfinished
    last_open_age: float = 0.0
    #: the age of its last answer
    last_answer_age: float = 0.0
    #: the age at which the next one was to come
    expected_answer_age: float = 0.0
    #: the age at which its result was made, as far as that can be known
    result_age: float | None = None
    #: seconds in which PicWish answered, for task_timeout
    answered_seconds: float = 0.0
    #: 404s in a row
    not_found_count: int = 0
    #: failed queries and downloads in a row
    failure_count: int = 0
    bad_result_count: int = 0
    is_inherited: bool = (
        #: of an earlier run, and not heard of in this one: paid work goes before anything is bought
        False
    )
    #: when it is to be asked for; None while it is being asked
    due_at: float | None = None

    @property
    def earliest_result_at(self) -> float:
        """From when on its result may lie there."""
        return self.born_at + self.last_open_age


class PollQueue:
    """Tasks by the moment when they are due, and those that are due by what presses. Sorted lists: 10,000 are few."""

    def __init__(self) -> None:
        self._tasks: dict[int, TrackedTask] = {}
        # Pairs of due time and id.
        self._scheduled: list[tuple[float, int]] = []
        # by rule: (due, id)
        self._due_by_rule: dict[str, list[tuple[float, int]]] = {}
        # (since, id) of all that are due
        self._due_by_age: list[tuple[float, int]] = []
        # the same, of those that are inherited
        self._inherited_due: list[tuple[float, int]] = []

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._tasks

    def get(self, job_id: int) -> TrackedTask | None:
        """What is known of a task."""
        return self._tasks.get(job_id)

    def track(self, task: TrackedTask, due: float) -> None:
        """Takes a task up, in the place of an earlier one of the same job."""
        self.drop(task.id)
        self._tasks[task.id] = task
        self.schedule(task, due)

    def schedule(self, task: TrackedTask, due: float) -> None:
        """(Re)sets when a task is due."""
        self._remove_from_lists(task)
        if task.id in self._tasks:
            task.due_at = due
            insort(self._scheduled, (due, task.id))

    def drop(self, job_id: int) -> None:
        """Forgets a task."""
        if job_id in self._tasks:
            self._remove_from_lists(self._tasks[job_id])
            del self._tasks[job_id]

    def seconds_until_due(self, now: float) -> float | None:
        """Seconds until the next task is due, at least 0; None without one."""
        self._promote_due(now)
        if self._due_by_age:
            return 0.0
        return self._scheduled[0][0] - now if self._scheduled else None

    def has_expiring_tasks(self, now: float) -> bool:
        """Whether a task is due whose hour is running out, or may be: nobody has asked for it since the start."""
        self._promote_due(now)
        return self._find_urgent(now) is not None

    def find_priority_task(
        self, now: float, likely: Callable[[TrackedTask], float], rank: Callable[[str], int]
    ) -> tuple[int, TrackedTask] | None:
        """Of the rules with a task that is due, the highest priority by ``rank`` and its task to ask for.

        None unless it is worth it: a query too early costs the others a request.
        """
        self._promote_due(now)
        if not self._due_by_rule:
            return None
        highest = max(map(rank, self._due_by_rule))
        best = self._most_likely_done((rule for rule in self._due_by_rule if rank(rule) == highest), likely)
        return (highest, best) if best is not None and likely(best) >= _MIN_PROBABILITY else None

    def pop(
        self, now: float, likely: Callable[[TrackedTask], float], prefer: TrackedTask | None = None
    ) -> TrackedTask | None:
        """The task to ask for now, if one is due; it is not due again before it is scheduled again.

        Of several, one whose hour is running out or may be, else ``prefer``, else of those that were due
        first the one that is done by what ``likely`` (0 to 1) says.
        """
        self._promote_due(now)
        task = self._find_urgent(now) or prefer or self._most_likely_done(self._due_by_rule, likely)
        if task is not None:
            self._remove_from_lists(task)
        return task

    def _most_likely_done(self, rules: Iterable[str], likely: Callable[[TrackedTask], float]) -> TrackedTask | None:
        first = islice(merge(*(self._due_by_rule[rule] for rule in rules)), _CANDIDATE_COUNT)
        return max((self._tasks[job_id] for _, job_id in first), key=likely, default=None)

    def _find_urgent(self, now: float) -> TrackedTask | None:
        in_time = bisect_left(self._due_by_age, (now - _TOO_LATE_AFTER,))
        if in_time < len(self._due_by_age) and now - self._due_by_age[in_time][0] > EXPIRING_AFTER:
            return self._tasks[self._due_by_age[in_time][1]]
        if in_time > 0:
            return self._tasks[self._due_by_age[in_time - 1][1]]
        return self._tasks[self._inherited_due[0][1]] if self._inherited_due else None

    def _promote_due(self, now: float) -> None:
        """What has become due by now."""
        number = bisect_right(self._scheduled, now, key=lambda entry: entry[0])
        for due, job_id in self._scheduled[:number]:
            task = self._tasks[job_id]
            insort(self._due_by_rule.setdefault(task.rule, []), (due, job_id))
            insort(self._due_by_age, (task.earliest_result_at, job_id))
            if task.is_inherited:
                insort(self._inherited_due, (task.earliest_result_at, job_id))
        del self._scheduled[:number]

    def _remove_from_lists(self, task: TrackedTask) -> None:
        if task.due_at is None:
            return
        _remove_sorted(self._scheduled, (task.due_at, task.id))
        _remove_sorted(self._due_by_age, (task.earliest_result_at, task.id))
        _remove_sorted(self._inherited_due, (task.earliest_result_at, task.id))
        due = self._due_by_rule.get(task.rule, [])
        _remove_sorted(due, (task.due_at, task.id))
        if not due:
            self._due_by_rule.pop(task.rule, None)
        task.due_at = None


def _remove_sorted(entries: list[tuple[float, int]], entry: tuple[float, int]) -> None:
    place = bisect_left(entries, entry)
    if place < len(entries) and entries[place] == entry:
        del entries[place]
