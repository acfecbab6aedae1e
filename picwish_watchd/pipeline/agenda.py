"""Which task to ask for next, and when. Pure: times are given, in monotonic seconds."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass

_CHOICE = 16  # of the tasks that are due so many, those that were due first, are compared

#: A task so old (seconds since its submission) is asked for before all else: results live one hour (API document).
EXPIRING = 45 * 60.0


@dataclass(slots=True)
class Followed:
    """What this process knows of a task beyond the journal. ``born`` is monotonic, the ages are seconds since then."""

    id: int
    type: int
    born: float
    open_at: float = 0.0  #: the age at which it was last seen unfinished
    heard: float = 0.0  #: the age of its last answer
    made_at: float | None = None  #: the age at which its result was made, as far as that can be known
    answered: float = 0.0  #: seconds in which PicWish answered, for task_timeout
    unknown: int = 0  #: 404s in a row
    failures: int = 0  #: failed queries and downloads in a row
    bad_results: int = 0
    inherited: bool = (
        False  #: of an earlier run, and not heard of in this one: paid work goes before anything is bought
    )
    due: float | None = None  #: when it is to be asked for; None while it is being asked


class Agenda:
    """Tasks by the moment when they are due."""

    def __init__(self) -> None:
        self._tasks: dict[int, Followed] = {}
        self._heap: list[tuple[float, int]] = []

    def __contains__(self, job_id: int) -> bool:
        return job_id in self._tasks

    def get(self, job_id: int) -> Followed | None:
        """What is known of a task."""
        return self._tasks.get(job_id)

    def follow(self, task: Followed, due: float) -> None:
        """Takes a task up."""
        self._tasks[task.id] = task
        self.schedule(task, due)

    def schedule(self, task: Followed, due: float) -> None:
        """(Re)sets when a task is due."""
        task.due = due
        heapq.heappush(self._heap, (due, task.id))

    def drop(self, job_id: int) -> None:
        """Forgets a task."""
        self._tasks.pop(job_id, None)

    def wait(self, now: float) -> float | None:
        """Seconds until the next task is due, at least 0; None without one."""
        first = self._first()
        return None if first is None else max(0.0, (first.due or 0.0) - now)

    def expiring(self, now: float) -> bool:
        """Whether the next task's hour is running out, or may be: nobody has asked for it since the start."""
        first = self._first()
        return first is not None and _presses(first, now)

    def take(self, now: float, likely: Callable[[Followed], float]) -> Followed | None:
        """The task to ask for now, if one is due; it is not due again before it is scheduled again.

        Of several, one whose hour is running out or may be, else the one that is done by what ``likely`` (0 to 1) says.
        """
        found: list[Followed] = []
        while len(found) < _CHOICE and (first := self._first()) is not None and (first.due or 0.0) <= now:
            heapq.heappop(self._heap)
            found.append(first)
        if not found:
            return None
        best = found[0]
        if len(found) > 1 and not _presses(best, now):
            best = max(found, key=lambda task: (_presses(task, now), likely(task)))
        for task in found:
            if task is not best:
                heapq.heappush(self._heap, (task.due or 0.0, task.id))
        best.due = None
        return best

    def _first(self) -> Followed | None:
        while self._heap:
            due, job_id = self._heap[0]
            task = self._tasks.get(job_id)
            if task is not None and task.due == due:
                return task
            heapq.heappop(self._heap)
        return None


def _presses(task: Followed, now: float) -> bool:
    return task.inherited or now - task.born > EXPIRING
