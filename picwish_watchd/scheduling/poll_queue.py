"""Order the queries: which task is queried next, and when. All times are given, in seconds of one clock."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from heapq import merge
from itertools import islice

# How many due tasks are compared, beginning with those that were due first.
_CANDIDATE_COUNT = 16
# A task of a higher priority goes before the others if it is done with at least this probability.
_MIN_PROBABILITY = 0.5

#: PicWish keeps results for one hour (API document). A result that may exist for this long (seconds) is queried before
#: everything else, the oldest first.
EXPIRING_AFTER = 45 * 60.0
# Seconds. Older results are probably too late. They come after the other expiring ones, which they would delay.
_TOO_LATE_AFTER = 59 * 60.0


@dataclass(slots=True)
class TrackedTask:
    """What this process knows of a task beyond the journal. Ages are seconds since ``born_at``."""

    id: int
    type: int
    rule: str
    #: When it was submitted, in seconds since boot.
    born_at: float
    #: The age at which PicWish last said that it is not done.
    last_open_age: float = 0.0
    #: The age at which PicWish last answered about it.
    last_answer_age: float = 0.0
    #: The age at which the next answer was expected.
    expected_answer_age: float = 0.0
    #: The age at which its result was made, as far as that is known.
    result_age: float | None = None
    #: Seconds in which PicWish answered, which count towards `task_timeout`.
    answered_seconds: float = 0.0
    #: Number of 404s in a row.
    not_found_count: int = 0
    #: Number of failed queries and downloads in a row.
    failure_count: int = 0
    #: Number of results that could not be downloaded or used.
    bad_result_count: int = 0
    #: Whether it is of an earlier run and PicWish has not answered about it in this one. Such paid tasks are queried
    #: before anything new is bought.
    is_inherited: bool = False
    #: When it is to be queried; None while a query is running.
    due_at: float | None = None

    @property
    def earliest_result_at(self) -> float:
        """The earliest time at which its result may have been made."""
        return self.born_at + self.last_open_age


class PollQueue:
    """Tasks by the time when they are due, and due tasks by their urgency. Sorted lists suffice for 10,000 tasks."""

    def __init__(self) -> None:
        self._tasks: dict[int, TrackedTask] = {}
        # Tasks that were not due at the last look, as pairs of due time and id.
        self._scheduled: list[tuple[float, int]] = []
        # Due tasks by rule, as pairs of due time and id.
        self._due_by_rule: dict[str, list[tuple[float, int]]] = {}
        # Due tasks as pairs of the earliest time of their result and id.
        self._due_by_age: list[tuple[float, int]] = []
        # Due tasks that are inherited, as pairs of the earliest time of their result and id.
        self._inherited_due: list[tuple[float, int]] = []

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._tasks

    def get(self, job_id: int) -> TrackedTask | None:
        """Return the task of a job, or None if it is not tracked."""
        return self._tasks.get(job_id)

    def track(self, task: TrackedTask, due: float) -> None:
        """Add a task that is due at ``due``; it replaces an earlier task of the same job."""
        self.drop(task.id)
        self._tasks[task.id] = task
        self.schedule(task, due)

    def schedule(self, task: TrackedTask, due: float) -> None:
        """Set when a task is due; a task that was dropped is ignored."""
        self._remove_from_lists(task)
        if task.id in self._tasks:
            task.due_at = due
            insort(self._scheduled, (due, task.id))

    def drop(self, job_id: int) -> None:
        """Remove the task of a job, if there is one."""
        if job_id in self._tasks:
            self._remove_from_lists(self._tasks[job_id])
            del self._tasks[job_id]

    def seconds_until_due(self, now: float) -> float | None:
        """Return the seconds until the next task is due, at least 0, or None without a task."""
        self._promote_due(now)
        if self._due_by_age:
            return 0.0
        return self._scheduled[0][0] - now if self._scheduled else None

    def has_expiring_tasks(self, now: float) -> bool:
        """Return whether a task is due whose result may expire soon: an old one, or one not queried since the start."""
        self._promote_due(now)
        return self._find_urgent(now) is not None

    def find_priority_task(
        self, now: float, probability: Callable[[TrackedTask], float], priority: Callable[[str], int]
    ) -> tuple[int, TrackedTask] | None:
        """Return the highest priority among the rules with a due task, and its task that is most likely done.

        ``probability`` returns how likely (0 to 1) a task is done, ``priority`` the priority of a rule. Return None if
        no such task is likely to be done, because a query too early costs the others a request.
        """
        self._promote_due(now)
        if not self._due_by_rule:
            return None
        highest = max(map(priority, self._due_by_rule))
        best = self._most_likely_done((rule for rule in self._due_by_rule if priority(rule) == highest), probability)
        return (highest, best) if best is not None and probability(best) >= _MIN_PROBABILITY else None

    def pop(
        self, now: float, probability: Callable[[TrackedTask], float], preferred: TrackedTask | None = None
    ) -> TrackedTask | None:
        """Remove the task to query now from the due tasks and return it, or None if none is due.

        First comes a task whose result may expire soon, then ``preferred``, then the one with the highest
        ``probability`` among those that were due first. It is not due again until it is scheduled.
        """
        self._promote_due(now)
        task = self._find_urgent(now) or preferred or self._most_likely_done(self._due_by_rule, probability)
        if task is not None:
            self._remove_from_lists(task)
        return task

    def _most_likely_done(
        self, rules: Iterable[str], probability: Callable[[TrackedTask], float]
    ) -> TrackedTask | None:
        candidates = islice(merge(*(self._due_by_rule[rule] for rule in rules)), _CANDIDATE_COUNT)
        return max((self._tasks[job_id] for _, job_id in candidates), key=probability, default=None)

    def _find_urgent(self, now: float) -> TrackedTask | None:
        in_time = bisect_left(self._due_by_age, (now - _TOO_LATE_AFTER,))
        if in_time < len(self._due_by_age) and now - self._due_by_age[in_time][0] > EXPIRING_AFTER:
            return self._tasks[self._due_by_age[in_time][1]]
        if in_time > 0:
            return self._tasks[self._due_by_age[in_time - 1][1]]
        return self._tasks[self._inherited_due[0][1]] if self._inherited_due else None

    def _promote_due(self, now: float) -> None:
        """Move the tasks that are due at ``now`` to the lists of due tasks."""
        due_count = bisect_right(self._scheduled, now, key=lambda entry: entry[0])
        for due, job_id in self._scheduled[:due_count]:
            task = self._tasks[job_id]
            insort(self._due_by_rule.setdefault(task.rule, []), (due, job_id))
            insort(self._due_by_age, (task.earliest_result_at, job_id))
            if task.is_inherited:
                insort(self._inherited_due, (task.earliest_result_at, job_id))
        del self._scheduled[:due_count]

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
    index = bisect_left(entries, entry)
    if index < len(entries) and entries[index] == entry:
        del entries[index]
