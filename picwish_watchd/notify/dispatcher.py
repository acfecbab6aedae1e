"""Finds out what people should be told, and hands it to the couriers; the work never waits for it."""

import asyncio
from contextlib import suppress
from functools import partial

import structlog

from picwish_watchd.config.notifiers import NotificationEvent, Notifier
from picwish_watchd.errors import JournalTemporaryError
from picwish_watchd.journal.ended_jobs import has_result_since, list_unsuccessful_jobs
from picwish_watchd.notify import budget_alerts, digest, state_file
from picwish_watchd.notify.alert_lifecycle import follow
from picwish_watchd.notify.alerts import Lookout, View, view_of
from picwish_watchd.notify.channel_worker import Courier
from picwish_watchd.notify.channels import command
from picwish_watchd.notify.channels.send import marks
from picwish_watchd.notify.failures import QUIET, due, gather
from picwish_watchd.notify.message import Notice
from picwish_watchd.notify.state_file import Memory, Waiting
from picwish_watchd.pipeline.context import PRICES, StepContext
from picwish_watchd.pipeline.gate import Gate
from picwish_watchd.pipeline.inboxes import Inboxes
from picwish_watchd.runtime.wakeup import Wakeup

_log = structlog.get_logger()

# seconds between looks
_LOOK = 1.0
# the same while nobody is to be told
_NOBODY = 60.0
# seconds between counts of credits
_SUMS = 10.0
# images that ended badly in one look; a flood takes several
_AT_ONCE = 1000


class Herald:
    """Looks at the journal, the gate and the folders once a second, while somebody is to be told.

    What is told, and to whom not yet, is kept beside the journal before it is sent, so that a restart loses nothing and
    repeats only what was just being sent, with the same id. A file that cannot be kept costs that, and no more.
    """

    def __init__(self, context: StepContext, gate: Gate, desks: Inboxes) -> None:
        self._context = context
        self._gate = gate
        self._desks = desks
        self._lookout = Lookout(context)
        self._path = state_file.place_of(context.journal.path)
        # None: nobody is to be told
        self._memory: Memory | None = None
        self._kept = b""
        self._couriers: dict[str, Courier] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._notify: tuple[Notifier, ...] | None = None
        # the history was looked at up to this line
        self._seen = 0
        # the last line before this run
        self._began = 0
        self._unproved: set[str] = set()
        # when what takes a while to count is counted again (monotonic)
        self._next_sums = 0.0
        self._hired = Wakeup()
        # the file could not be written, and that was told
        self._unkept = False

    async def run(self) -> None:
        """Until cancelled. A fault in here is told in the log and ends the telling, never the work."""
        looking = asyncio.create_task(self._keep_looking())
        try:
            await asyncio.wait([looking])
            _log.error("notify.stopped", error=looking.exception(), reason="nobody is told any more until a restart")
        finally:
            looking.cancel()
            self.stop()

    def renew(self) -> None:
        """The configuration was read again: there may be somebody to tell."""
        self._hired.notify()

    def stop(self) -> None:
        """Nobody is told any more; what waits is kept for the next run."""
        command.end_all()
        self._memory = None
        self._lookout.close()
        for mark in list(self._tasks):
            self._dismiss(mark)

    async def close(self, patience: float, at_once: asyncio.Event) -> None:
        """A last look; then what is under way has ``patience`` seconds, or less if ``at_once`` is set.

        What is left is sent by the next run.
        """
        if self._memory is None:
            return
        last = asyncio.create_task(self._last_words())
        hurried = asyncio.create_task(at_once.wait())
        await asyncio.wait([last, hurried], timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if last.done() and last.exception() is not None:
            _log.error("notify.stopped", error=last.exception(), reason="the last messages are told by the next run")
        for task in (last, hurried):
            task.cancel()
        # also where nothing is to be told: from here on is news
        self._kept = b""
        self._keep(self._memory)

    async def _last_words(self) -> None:
        with suppress(JournalTemporaryError):
            self.look(at_once=True)
        for courier in list(self._couriers.values()):
            await courier.rested()

    @property
    def resting(self) -> bool:
        """Whether nothing is under way: all is sent, or tried again later."""
        return all(courier.resting for courier in self._couriers.values())

    async def _keep_looking(self) -> None:
        while True:
            # its disk is full, or it is locked: later
            with suppress(JournalTemporaryError):
                self.look()
            if self._memory is None:
                await self._hired.wait(_NOBODY)
            else:
                await self._context.clock.sleep(_LOOK)

    def look(self, *, at_once: bool = False) -> None:
        """One look; ``at_once``: images that ended badly are told without waiting for more of them."""
        self._take_over(self._context.config.notify)
        kept = self._memory
        if kept is None:
            return
        now = self._context.clock.now()
        view = view_of(self._context, self._gate, self._desks, self._lookout)
        told = [
            (notice, [mark for mark, each in self._couriers.items() if notice.event in each.notifier.events])
            for notice in self._found(kept, view, now, at_once=at_once)
        ]
        told += self._digests(kept, view, now)
        kept.waiting += [Waiting(notice, list(to)) for notice, to in told if to]
        self._keep(kept)
        for notice, to in told:
            for mark in to:
                self._couriers[mark].take(notice)

    def _found(self, kept: Memory, view: View, now: float, *, at_once: bool) -> list[Notice]:
        journal, config = self._context.journal, self._context.config
        last = journal.last_event_id()
        news = last > self._seen
        while last > self._seen:
            found = list_unsuccessful_jobs(journal, self._seen, _AT_ONCE)
            self._seen = last if len(found) < _AT_ONCE else found[-1].event
            gather(kept, found, now)
            if not at_once:
                # the rest of a flood in the next look
                break
        if news and self._unproved and has_result_since(journal, self._began):
            self._unproved.clear()
        kept.told = {key: at for key, at in kept.told.items() if 0 <= now - at < QUIET}
        notices = [*due(kept, now, at_once=at_once), *follow(kept, view, self._unproved, now)]
        if at_once or self._context.clock.monotonic() >= self._next_sums:
            self._next_sums = self._context.clock.monotonic() + _SUMS
            cheapest = min(PRICES[rule.type] for rule in config.rules)
            notices += budget_alerts.crossed(kept, journal, config.budget, cheapest, now)
        return notices

    def _digests(self, kept: Memory, view: View, now: float) -> list[tuple[Notice, list[str]]]:
        listeners = {m: c.notifier for m, c in self._couriers.items() if NotificationEvent.DIGEST in c.notifier.events}
        times = {each.digest_at for each in listeners.values()}
        made = digest.due(kept, self._context.journal, times, self._context.config.budget, view.troubles, now)
        return [
            (
                each.notice,
                [m for m, to in listeners.items() if to.digest_at == each.at and (to.digest_always or not each.empty)],
            )
            for each in made
        ]

    def _done(self, mark: str, notice: Notice) -> None:
        """Sent, or given up."""
        if self._memory is not None:
            for waiting in self._memory.waiting:
                if waiting.notice.id == notice.id and mark in waiting.to:
                    waiting.to.remove(mark)
            self._memory.waiting = [waiting for waiting in self._memory.waiting if waiting.to]

    def _keep(self, kept: Memory) -> None:
        """Writes it where it has changed; that more history was looked at in vain is no change."""
        if state_file.dumped(kept) == self._kept:
            return
        kept.event = self._seen
        content = state_file.dumped(kept)
        try:
            state_file.save(self._path, content)
        except OSError as error:
            if not self._unkept:
                reason = f"it cannot be written: {error.strerror or error}; after a restart some may be told again"
                _log.warning("notify.not_kept", path=self._path, reason=reason)
            self._unkept = True
        else:
            self._kept, self._unkept = content, False

    def _take_over(self, notify: tuple[Notifier, ...]) -> None:
        """The configuration as it is now; what waits for a notifier that stays is not lost."""
        if notify == self._notify:
            return
        self._notify = notify
        if not notify:
            self._memory = None
            state_file.forget(self._path)
        elif self._memory is None:
            self._remember()
        marked = marks(notify)
        for mark in [mark for mark in self._couriers if mark not in marked]:
            self._dismiss(mark)
        for mark, notifier in marked.items():
            if mark in self._couriers:
                self._couriers[mark].notifier = notifier
            else:
                self._engage(mark, notifier)

    def _remember(self) -> None:
        """What an earlier run left; without it, what happens from now on is news."""
        self._began = self._context.journal.last_event_id()
        kept = state_file.load(self._path) or Memory.starting_at(self._began)
        # an older journal may have been put back
        kept.event = min(kept.event, self._began)
        self._memory, self._seen = kept, kept.event
        self._unproved = {key for key in kept.open if key.startswith("blocked:")}

    def _engage(self, mark: str, notifier: Notifier) -> None:
        courier = Courier(
            notifier, lanes=self._context.executor, clock=self._context.clock, done=partial(self._done, mark)
        )
        self._couriers[mark] = courier
        self._tasks[mark] = asyncio.create_task(courier.run())
        for waiting in self._memory.waiting if self._memory is not None else []:
            if mark in waiting.to:
                courier.take(waiting.notice)

    def _dismiss(self, mark: str) -> None:
        self._tasks.pop(mark).cancel()
        del self._couriers[mark]
