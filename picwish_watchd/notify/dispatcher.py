"""Finds out what people should be told, and hands it to the couriers; the work never waits for it."""

import asyncio
from contextlib import suppress
from functools import partial

import structlog

from picwish_watchd.config.notifiers import NotificationEvent, Notifier
from picwish_watchd.errors import JournalTemporaryError
from picwish_watchd.journal.ended_jobs import has_result_since, list_unsuccessful_jobs
from picwish_watchd.notify import budget_alerts, digest, state_file
from picwish_watchd.notify.alert_lifecycle import update_alerts
from picwish_watchd.notify.alerts import AlertProbes, AlertView, collect_alerts
from picwish_watchd.notify.channel_worker import ChannelWorker
from picwish_watchd.notify.channels import command
from picwish_watchd.notify.channels.send import assign_notifier_ids
from picwish_watchd.notify.failures import REPEAT_INTERVAL, group_failures, pop_due_messages
from picwish_watchd.notify.message import Message
from picwish_watchd.notify.state_file import NotifyState, QueuedMessage
from picwish_watchd.pipeline.context import PRICES, StepContext
from picwish_watchd.pipeline.gate import Gate
from picwish_watchd.pipeline.inboxes import Inboxes
from picwish_watchd.runtime.wakeup import Wakeup

_log = structlog.get_logger()

# seconds between looks
_CHECK_INTERVAL = 1.0
# the same while nobody is to be told
_IDLE_INTERVAL = 60.0
# seconds between counts of credits
_BUDGET_CHECK_INTERVAL = 10.0
# images that ended badly in one look; a flood takes several
_BATCH_SIZE = 1000


class NotificationDispatcher:
    """Looks at the journal, the gate and the folders once a second, while somebody is to be told.

    What is told, and to whom not yet, is kept beside the journal before it is sent, so that a restart loses nothing and
    repeats only what was just being sent, with the same id. A file that cannot be kept costs that, and no more.
    """

    def __init__(self, context: StepContext, gate: Gate, desks: Inboxes) -> None:
        self._context = context
        self._gate = gate
        self._inboxes = desks
        self._alert_probes = AlertProbes(context)
        self._state_path = state_file.state_path(context.journal.path)
        # None: nobody is to be told
        self._state: NotifyState | None = None
        self._saved_content = b""
        self._workers: dict[str, ChannelWorker] = {}
        self._worker_tasks: dict[str, asyncio.Task[None]] = {}
        self._notifiers: tuple[Notifier, ...] | None = None
        # the history was looked at up to this line
        self._last_seen_event = 0
        # the last line before this run
        self._start_event = 0
        self._unconfirmed_alerts: set[str] = set()
        # when what takes a while to count is counted again (monotonic)
        self._next_budget_check = 0.0
        self._config_changed = Wakeup()
        # the file could not be written, and that was told
        self._save_failed = False

    async def run(self) -> None:
        """Until cancelled. A fault in here is told in the log and ends the telling, never the work."""
        looking = asyncio.create_task(self._run_checks())
        try:
            await asyncio.wait([looking])
            _log.error("notify.stopped", error=looking.exception(), reason="nobody is told any more until a restart")
        finally:
            looking.cancel()
            self.stop()

    def signal_config_change(self) -> None:
        """The configuration was read again: there may be somebody to tell."""
        self._config_changed.notify()

    def stop(self) -> None:
        """Nobody is told any more; what waits is kept for the next run."""
        command.kill_running_commands()
        self._state = None
        self._alert_probes.close()
        for mark in list(self._worker_tasks):
            self._stop_worker(mark)

    async def close(self, patience: float, at_once: asyncio.Event) -> None:
        """A last look; then what is under way has ``patience`` seconds, or less if ``at_once`` is set.

        What is left is sent by the next run.
        """
        if self._state is None:
            return
        last = asyncio.create_task(self._send_last_messages())
        hurried = asyncio.create_task(at_once.wait())
        await asyncio.wait([last, hurried], timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if last.done() and last.exception() is not None:
            _log.error("notify.stopped", error=last.exception(), reason="the last messages are told by the next run")
        for task in (last, hurried):
            task.cancel()
        # also where nothing is to be told: from here on is news
        self._saved_content = b""
        self._save_state(self._state)

    async def _send_last_messages(self) -> None:
        with suppress(JournalTemporaryError):
            self.dispatch_messages(at_once=True)
        for courier in list(self._workers.values()):
            await courier.wait_until_idle()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way: all is sent, or tried again later."""
        return all(courier.is_idle for courier in self._workers.values())

    async def _run_checks(self) -> None:
        while True:
            # its disk is full, or it is locked: later
            with suppress(JournalTemporaryError):
                self.dispatch_messages()
            if self._state is None:
                await self._config_changed.wait(_IDLE_INTERVAL)
            else:
                await self._context.clock.sleep(_CHECK_INTERVAL)

    def dispatch_messages(self, *, at_once: bool = False) -> None:
        """One look; ``at_once``: images that ended badly are told without waiting for more of them."""
        self._apply_config(self._context.config.notify)
        kept = self._state
        if kept is None:
            return
        now = self._context.clock.now()
        view = collect_alerts(self._context, self._gate, self._inboxes, self._alert_probes)
        told = [
            (notice, [mark for mark, each in self._workers.items() if notice.event in each.notifier.events])
            for notice in self._collect_messages(kept, view, now, at_once=at_once)
        ]
        told += self._collect_digests(kept, view, now)
        kept.waiting += [QueuedMessage(notice, list(to)) for notice, to in told if to]
        self._save_state(kept)
        for notice, to in told:
            for mark in to:
                self._workers[mark].enqueue(notice)

    def _collect_messages(self, kept: NotifyState, view: AlertView, now: float, *, at_once: bool) -> list[Message]:
        journal, config = self._context.journal, self._context.config
        last = journal.last_event_id()
        news = last > self._last_seen_event
        while last > self._last_seen_event:
            found = list_unsuccessful_jobs(journal, self._last_seen_event, _BATCH_SIZE)
            self._last_seen_event = last if len(found) < _BATCH_SIZE else found[-1].event
            group_failures(kept, found, now)
            if not at_once:
                # the rest of a flood in the next look
                break
        if news and self._unconfirmed_alerts and has_result_since(journal, self._start_event):
            self._unconfirmed_alerts.clear()
        kept.told = {key: at for key, at in kept.told.items() if 0 <= now - at < REPEAT_INTERVAL}
        notices = [
            *pop_due_messages(kept, now, at_once=at_once),
            *update_alerts(kept, view, self._unconfirmed_alerts, now),
        ]
        if at_once or self._context.clock.monotonic() >= self._next_budget_check:
            self._next_budget_check = self._context.clock.monotonic() + _BUDGET_CHECK_INTERVAL
            cheapest = min(PRICES[rule.type] for rule in config.rules)
            notices += budget_alerts.update_budget_alerts(kept, journal, config.budget, cheapest, now)
        return notices

    def _collect_digests(self, kept: NotifyState, view: AlertView, now: float) -> list[tuple[Message, list[str]]]:
        listeners = {m: c.notifier for m, c in self._workers.items() if NotificationEvent.DIGEST in c.notifier.events}
        times = {each.digest_at for each in listeners.values()}
        made = digest.pop_due_digests(kept, self._context.journal, times, self._context.config.budget, view.alerts, now)
        return [
            (
                each.message,
                [
                    m
                    for m, to in listeners.items()
                    if to.digest_at == each.time_of_day and (to.digest_always or not each.is_empty)
                ],
            )
            for each in made
        ]

    def _on_message_done(self, mark: str, notice: Message) -> None:
        """Sent, or given up."""
        if self._state is not None:
            for waiting in self._state.waiting:
                if waiting.notice.id == notice.id and mark in waiting.to:
                    waiting.to.remove(mark)
            self._state.waiting = [waiting for waiting in self._state.waiting if waiting.to]

    def _save_state(self, kept: NotifyState) -> None:
        """Writes it where it has changed; that more history was looked at in vain is no change."""
        if state_file.dump_state(kept) == self._saved_content:
            return
        kept.event = self._last_seen_event
        content = state_file.dump_state(kept)
        try:
            state_file.save_state(self._state_path, content)
        except OSError as error:
            if not self._save_failed:
                reason = f"it cannot be written: {error.strerror or error}; after a restart some may be told again"
                _log.warning("notify.not_kept", path=self._state_path, reason=reason)
            self._save_failed = True
        else:
            self._saved_content, self._save_failed = content, False

    def _apply_config(self, notify: tuple[Notifier, ...]) -> None:
        """The configuration as it is now; what waits for a notifier that stays is not lost."""
        if notify == self._notifiers:
            return
        self._notifiers = notify
        if not notify:
            self._state = None
            state_file.delete_state(self._state_path)
        elif self._state is None:
            self._load_state()
        marked = assign_notifier_ids(notify)
        for mark in [mark for mark in self._workers if mark not in marked]:
            self._stop_worker(mark)
        for mark, notifier in marked.items():
            if mark in self._workers:
                self._workers[mark].notifier = notifier
            else:
                self._start_worker(mark, notifier)

    def _load_state(self) -> None:
        """What an earlier run left; without it, what happens from now on is news."""
        self._start_event = self._context.journal.last_event_id()
        kept = state_file.load_state(self._state_path) or NotifyState.starting_at(self._start_event)
        # an older journal may have been put back
        kept.event = min(kept.event, self._start_event)
        self._state, self._last_seen_event = kept, kept.event
        self._unconfirmed_alerts = {key for key in kept.open if key.startswith("blocked:")}

    def _start_worker(self, mark: str, notifier: Notifier) -> None:
        courier = ChannelWorker(
            notifier, lanes=self._context.executor, clock=self._context.clock, done=partial(self._on_message_done, mark)
        )
        self._workers[mark] = courier
        self._worker_tasks[mark] = asyncio.create_task(courier.run())
        for waiting in self._state.waiting if self._state is not None else []:
            if mark in waiting.to:
                courier.enqueue(waiting.notice)

    def _stop_worker(self, mark: str) -> None:
        self._worker_tasks.pop(mark).cancel()
        del self._workers[mark]
