"""Which task to ask for next, and when. Pure: times are given, in monotonic seconds."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from heapq import merge
from itertools import islice

_CHOICE = 16  # of the tasks that are due so many, those that were due first, are compared
_WORTH = 0.5  # a task of a higher priority goes before the others once it is as likely done as not

#: Results live one hour (API document). What may lie there for so long (seconds) is asked for before all else ...
EXPIRING = 45 * 60.0
_LATE = 59 * 60.0  # ... the oldest first, but for those that are too late: they would make all behind them too late


@dataclass(slots=True)
class Followed:
    """What this process knows of a task beyond the journal. ``born`` is monotonic, the ages are seconds since then."""

    id: int
    type: int
    rule: str
    born: float
    open_at: float = 0.0  #: the age at which it was last seen unfinished
    heard: float = 0.0  #: the age of its last answer
    expected: float = 0.0  #: the age at which the next one was to come
    made_at: float | None = None  #: the age at which its result was made, as far as that can be known
    answered: float = 0.0  #: seconds in which PicWish answered, for task_timeout
    unknown: int = 0  #: 404s in a row
    failures: int = 0  #: failed queries and downloads in a row
    bad_results: int = 0
    inherited: bool = (
        False  #: of an earlier run, and not heard of in this one: paid work goes before anything is bought
    )
    due: float | None = None  #: when it is to be asked for; None while it is being asked

    @property
    def since(self) -> float:
        """From when on its result may lie there."""
        return self.born + self.open_at


class Agenda:
    """Tasks by the moment when they are due, and those that are due by what presses. Sorted lists: 10,000 are few."""

    def __init__(self) -> None:
        self._tasks: dict[int, Followed] = {}
        self._later: list[tuple[float, int]] = []  # (due, id)
        self._due: dict[str, list[tuple[float, int]]] = {}  # by rule: (due, id)
        self._lying: list[tuple[float, int]] = []  # (since, id) of all that are due
        self._unheard: list[tuple[float, int]] = []  # the same, of those that are inherited

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._tasks

    def get(self, job_id: int) -> Followed | None:
        """What is known of a task."""
        return self._tasks.get(job_id)

    def follow(self, task: Followed, due: float) -> None:
        """Takes a task up, in the place of an earlier one of the same job."""
        self.drop(task.id)
        self._tasks[task.id] = task
        self.schedule(task, due)

    def schedule(self, task: Followed, due: float) -> None:
        """(Re)sets when a task is due."""
        self._unlist(task)
        if task.id in self._tasks:
            task.due = due
            insort(self._later, (due, task.id))

    def drop(self, job_id: int) -> None:
        """Forgets a task."""
        if job_id in self._tasks:
            self._unlist(self._tasks[job_id])
            del self._tasks[job_id]

    def wait(self, now: float) -> float | None:
        """Seconds until the next task is due, at least 0; None without one."""
        self._ripen(now)
        if self._lying:
            return 0.0
        return self._later[0][0] - now if self._later else None

    def expiring(self, now: float) -> bool:
        """Whether a task is due whose hour is running out, or may be: nobody has asked for it since the start."""
        self._ripen(now)
        return self._pressing(now) is not None

    def favoured(
        self, now: float, likely: Callable[[Followed], float], rank: Callable[[str], int]
    ) -> tuple[int, Followed] | None:
        """Of the rules with a task that is due, the highest priority by ``rank`` and its task to ask for.

        None unless it is worth it: a query too early costs the others a request.
        """
        self._ripen(now)
        if not self._due:
            return None
        highest = max(map(rank, self._due))
        best = self._likeliest((rule for rule in self._due if rank(rule) == highest), likely)
        return (highest, best) if best is not None and likely(best) >= _WORTH else None

    def take(self, now: float, likely: Callable[[Followed], float], prefer: Followed | None = None) -> Followed | None:
        """The task to ask for now, if one is due; it is not due again before it is scheduled again.

        Of several, one whose hour is running out or may be, else ``prefer``, else of those that were due
        first the one that is done by what ``likely`` (0 to 1) says.
        """
        self._ripen(now)
        task = self._pressing(now) or prefer or self._likeliest(self._due, likely)
        if task is not None:
            self._unlist(task)
        return task

    def _likeliest(self, rules: Iterable[str], likely: Callable[[Followed], float]) -> Followed | None:
        first = islice(merge(*(self._due[rule] for rule in rules)), _CHOICE)
        return max((self._tasks[job_id] for _, job_id in first), key=likely, default=None)

    def _pressing(self, now: float) -> Followed | None:
        in_time = bisect_left(self._lying, (now - _LATE,))
        if in_time < len(self._lying) and now - self._lying[in_time][0] > EXPIRING:
            return self._tasks[self._lying[in_time][1]]
        if in_time > 0:
            return self._tasks[self._lying[in_time - 1][1]]
        return self._tasks[self._unheard[0][1]] if self._unheard else None

    def _ripen(self, now: float) -> None:
        """What has become due by now."""
        number = bisect_right(self._later, now, key=lambda entry: entry[0])
        for due, job_id in self._later[:number]:
            task = self._tasks[job_id]
            insort(self._due.setdefault(task.rule, []), (due, job_id))
            insort(self._lying, (task.since, job_id))
            if task.inherited:
                insort(self._unheard, (task.since, job_id))
        del self._later[:number]

    def _unlist(self, task: Followed) -> None:
        if task.due is None:
            return
        _remove(self._later, (task.due, task.id))
        _remove(self._lying, (task.since, task.id))
        _remove(self._unheard, (task.since, task.id))
        due = self._due.get(task.rule, [])
        _remove(due, (task.due, task.id))
        if not due:
            self._due.pop(task.rule, None)
        task.due = None


def _remove(entries: list[tuple[float, int]], entry: tuple[float, int]) -> None:
    place = bisect_left(entries, entry)
    if place < len(entries) and entries[place] == entry:
        del entries[place]
