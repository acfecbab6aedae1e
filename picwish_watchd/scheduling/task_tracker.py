"""Track the tasks at PicWish: how old they are, when each is queried next, and how many there may be."""

from collections.abc import Callable

from picwish_watchd.clock import Clock
from picwish_watchd.config.model import Config
from picwish_watchd.job import Job, State
from picwish_watchd.journal.queue_reader import QueueReader
from picwish_watchd.journal.rows import RunningTask
from picwish_watchd.pricing import TaskType
from picwish_watchd.runtime.wakeup import Wakeup
from picwish_watchd.scheduling.download_slots import DownloadSlots
from picwish_watchd.scheduling.duration_model import DurationModel, max_useful_pending
from picwish_watchd.scheduling.poll_queue import PollQueue, TrackedTask

#: Seconds for which PicWish keeps a result (API document).
RESULT_LIFETIME = 3600.0

# Tasks of each type from which the durations are learned at the start.
_LEARNED_TASKS = 200
# Seconds. A task of this age that no query could reach is lost, because results are kept for an hour only ...
_LOST_AGE = 2 * 3600.0
# ... but only after this many seconds without a response: after a start the network may be late and the clock wrong.
_LOST_SILENCE = 900.0
# Seconds. A response later than expected by more than this ends an outage, which does not count as PicWish's time.
_MAX_RESPONSE_GAP = 60.0
# Seconds until a task is queried whose response is being handled: that is needed only if the response is lost.
_HANDLED_DELAY = 30.0
# Seconds. An adopted task waits no longer than this for its `not_before`, because the wall clock may be wrong.
_MAX_ADOPTED_DELAY = 300.0
# Seconds between looks for tasks that only the journal knows.
_ADOPT_INTERVAL_MIN, _ADOPT_INTERVAL_MAX = 1.0, 30.0
# A look takes 5 ms with 10,000 tasks; the interval is this many times as long as the look took.
_ADOPT_INTERVAL_FACTOR = 50


class TaskTracker:
    """The tasks at PicWish and what this process knows of them beyond the journal.

    Ages are in seconds since submission. They count on while this machine is suspended, because PicWish works on.
    """

    def __init__(
        self,
        journal: QueueReader,
        clock: Clock,
        config: Callable[[], Config],
        *,
        download_slots: DownloadSlots,
        wakeup: Wakeup,
    ) -> None:
        """Learn the durations from the journal; ``config`` returns the configuration in force.

        ``wakeup`` is notified of each new task.
        """
        self._journal, self._clock, self._config = journal, clock, config
        self._download_slots = download_slots
        self._wakeup = wakeup
        # By `TaskType`.
        self._duration_models: dict[int, DurationModel] = {
            task_type: DurationModel(journal.recent_task_durations(task_type, _LEARNED_TASKS)) for task_type in TaskType
        }
        # Seconds by which 99 % of tasks are done, before anything is learned.
        self._prior_p99 = DurationModel().p99
        self._poll_queue = PollQueue()
        # Seconds since boot.
        self._next_adoption_at = 0.0
        # Whether the next query goes to a rule of a higher priority. Every second one goes to the task that is due.
        self._prefers_priority = True

    def adopt_running_tasks(self) -> None:
        """Track tasks that only the journal knows: those of an earlier run, and those that `retry` brought back."""
        now = self._now()
        if now < self._next_adoption_at:
            return
        for task in self._journal.running_tasks(excluding=self._poll_queue):
            self._adopt_task(task)
        interval = max(_ADOPT_INTERVAL_MIN, _ADOPT_INTERVAL_FACTOR * (self._now() - now))
        self._next_adoption_at = now + min(_ADOPT_INTERVAL_MAX, interval)

    def track_new_task(self, job: Job) -> None:
        """Track the task that was just created for ``job``; its age counts from now."""
        now = self._now()
        poll_age = self._duration_models[job.type].next_poll_age(0.0)
        task = TrackedTask(job.id, job.type, job.rule, born_at=now, expected_answer_age=poll_age)
        self._poll_queue.track(task, now + poll_age)
        self._wakeup.notify()

    def get_or_track(self, job: Job) -> TrackedTask:
        """Return the task of ``job``. One that is not tracked yet is as old as the wall clock says."""
        task = self._poll_queue.get(job.id)
        if task is None:
            now = self._now()
            age = max(0.0, self._clock.now() - (job.submitted_at or 0.0))
            task = TrackedTask(job.id, job.type, job.rule, born_at=now - age, last_answer_age=age)
            self._poll_queue.track(task, now + _HANDLED_DELAY)
        return task

    def drop(self, job_id: int) -> None:
        """Stop tracking the task of a job."""
        self._poll_queue.drop(job_id)

    def pending_limit(self) -> int:
        """Return how many tasks may be at PicWish at once: enough to keep all requests busy, few enough to download.

        Quick tasks lower the limit only with ``sync: 1``, where a silence puts each task in doubt. Otherwise a few
        tasks that happen to be slow would block all submissions.
        """
        config = self._config()
        api, rules = config.api, config.rules
        shortest = 0.0 if any(rule.sync for rule in rules) else self._prior_p99
        longest = max(shortest, *(self._duration_models[rule.type].p99 for rule in rules))
        wanted = max_useful_pending(api.qps, longest) if api.max_pending is None else api.max_pending
        return min(wanted, self._download_slots.max_in_flight(2 * max_useful_pending(api.qps, self._prior_p99)))

    def has_expiring_tasks(self) -> bool:
        """Return whether a result may be lost unless it is queried before anything else is requested."""
        return self._poll_queue.has_expiring_tasks(self._now())

    def seconds_until_due(self) -> float | None:
        """Return the seconds until the next task is due, at least 0, or None without a task."""
        return self._poll_queue.seconds_until_due(self._now())

    def next_priority(self) -> int | None:
        """Return the priority for the next query's permit, or None if the query goes to the task that is due."""
        preferred = self._find_priority_task()
        return None if preferred is None else preferred[0]

    def choose_due_task(self) -> Job | None:
        """Return the job whose task is due and most likely done, or None without one.

        Every second time, a task of a higher priority goes first if it is likely to be done.
        """
        preferred = self._find_priority_task()
        self._prefers_priority = preferred is None
        preferred_task = None if preferred is None else preferred[1]
        while (task := self._poll_queue.pop(self._now(), self._probability_done, preferred_task)) is not None:
            job = self._journal.get(task.id)
            if job is not None and job.state is State.PENDING:
                return job
            self._poll_queue.drop(task.id)
            preferred_task = None
        return None

    def schedule(self, task: TrackedTask, pause: float) -> None:
        """Let a task be due ``pause`` seconds from now."""
        self._poll_queue.schedule(task, self._now() + pause)

    def ensure_scheduled(self, task: TrackedTask) -> None:
        """Let a task that is tracked and not scheduled be due now."""
        if task.due_at is None and task.id in self._poll_queue:
            self._poll_queue.schedule(task, self._now())

    def record_processing(self, task: TrackedTask) -> bool:
        """Record the response that a task is not done, and schedule its next query.

        Return whether `task_timeout` is over. It counts only the time in which PicWish responded.
        """
        age, limit = self.age(task), self._config().api.task_timeout
        task.answered_seconds += min(
            age - task.last_answer_age,
            max(0.0, task.expected_answer_age - task.last_answer_age) + _MAX_RESPONSE_GAP,
        )
        task.last_answer_age = task.last_open_age = age
        task.not_found_count, task.is_inherited = 0, False
        timeout_age = age + limit - task.answered_seconds
        next_age = self._duration_models[task.type].next_poll_age(age)
        task.expected_answer_age = max(age + 0.001, min(next_age, timeout_age))
        self._poll_queue.schedule(task, task.born_at + task.expected_answer_age)
        return task.answered_seconds >= limit

    def estimate_duration(self, task: TrackedTask, reported: float | None) -> float:
        """Return how many seconds PicWish worked on a task that is done.

        ``reported`` is PicWish's own figure. It counts as far as it agrees with what was observed here: the task took
        longer than until the last query that found it open, and no longer than until now. In a backlog that says
        little, because a task is queried long after its end; then the duration model says what is likely.
        """
        done_age = max(task.last_open_age, self.age(task))
        return self._duration_models[task.type].estimate_duration(task.last_open_age, done_age, reported)

    def record_success(self, task: TrackedTask, seconds: float) -> None:
        """Record that a task was done after ``seconds``, and learn from it."""
        task.result_age = seconds if task.result_age is None else task.result_age
        self._duration_models[task.type].observe(seconds)

    def age(self, task: TrackedTask) -> float:
        """Return the seconds since a task was submitted."""
        return self._now() - task.born_at

    def remaining_lifetime(self, task: TrackedTask) -> float:
        """Return the seconds for which PicWish still keeps a task's result; negative if they are over."""
        return RESULT_LIFETIME - self.age(task) + (task.result_age or 0.0)

    def is_past_lifetime(self, task: TrackedTask) -> bool:
        """Return whether PicWish no longer keeps a task's result, whenever that was made."""
        return self._now() - task.earliest_result_at > RESULT_LIFETIME

    def is_lost(self, task: TrackedTask) -> bool:
        """Return whether a task that no query can reach is given up."""
        age = self.age(task)
        return age > _LOST_AGE and age - task.last_answer_age > _LOST_SILENCE

    def _find_priority_task(self) -> tuple[int, TrackedTask] | None:
        """Return the priority and the task to prefer over the one that is due, or None if it is not its turn."""
        priorities = {rule.name: rule.priority for rule in self._config().rules}
        if not self._prefers_priority or len(set(priorities.values())) < 2:
            return None
        return self._poll_queue.find_priority_task(
            self._now(), self._probability_done, lambda rule: priorities.get(rule, 0)
        )

    def _probability_done(self, task: TrackedTask) -> float:
        return self._duration_models[task.type].probability_done(task.last_open_age, self.age(task))

    def _adopt_task(self, task: RunningTask) -> None:
        now, wall = self._now(), self._clock.now()
        age = max(0.0, wall - task.submitted_at)
        first_poll_age = self._duration_models[task.type].next_poll_age(0.0)
        pause = max(0.0, min(task.not_before - wall, _MAX_ADOPTED_DELAY), first_poll_age - age)
        adopted = TrackedTask(task.id, task.type, task.rule, born_at=now - age, last_answer_age=age, is_inherited=True)
        self._poll_queue.track(adopted, now + pause)

    def _now(self) -> float:
        return self._clock.since_boot()
