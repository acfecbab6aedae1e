"""Find out what people should know and hand it to the channel workers; the work never waits for it."""

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
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pipeline.gate import Gate
from picwish_watchd.pipeline.inboxes import Inboxes
from picwish_watchd.pricing import PRICES
from picwish_watchd.runtime.wakeup import Wakeup

_log = structlog.get_logger()

# Seconds between checks.
_CHECK_INTERVAL = 1.0
# Seconds between looks at the configuration while it has no notifiers.
_IDLE_INTERVAL = 60.0
# Seconds between counts of credits.
_BUDGET_CHECK_INTERVAL = 10.0
# Unsuccessful jobs that one check reads; a flood of them takes several checks.
_BATCH_SIZE = 1000


class NotificationDispatcher:
    """The loop that looks once a second for what to tell people, while there are notifiers.

    Messages and their recipients are saved beside the journal before they are sent. So a restart loses nothing and
    repeats only what was being sent at that moment, with the same id. If the file cannot be written, messages are sent
    all the same.
    """

    def __init__(self, context: StepContext, gate: Gate, inboxes: Inboxes) -> None:
        self._context = context
        self._gate = gate
        self._inboxes = inboxes
        self._alert_probes = AlertProbes(context.journal, context.clock, context.executor)
        self._state_path = state_file.state_path(context.journal.path)
        # None while there are no notifiers.
        self._state: NotifyState | None = None
        self._saved_content = b""
        self._workers: dict[str, ChannelWorker] = {}
        self._worker_tasks: dict[str, asyncio.Task[None]] = {}
        self._notifiers: tuple[Notifier, ...] | None = None
        # The last line of the history that was read.
        self._last_seen_event = 0
        # The last line of the history before this run.
        self._start_event = 0
        # Keys of alerts of an earlier run that this run could not check yet.
        self._unconfirmed_alerts: set[str] = set()
        # Monotonic time of the next count of credits.
        self._next_budget_check = 0.0
        self._config_changed = Wakeup()
        # The state file could not be written, and that was logged.
        self._save_failed = False

    async def run(self) -> None:
        """Run the checks until cancelled. A bug in them is logged and ends the notifications, never the work."""
        checks = asyncio.create_task(self._run_checks())
        try:
            await asyncio.wait([checks])
            _log.error("notify.stopped", error=checks.exception(), reason="no notifications are sent until a restart")
        finally:
            checks.cancel()
            self.stop()

    def signal_config_change(self) -> None:
        """Check at once: the configuration was read again and may have notifiers now."""
        self._config_changed.notify()

    def stop(self) -> None:
        """Stop all workers and commands; messages that wait are kept for the next run."""
        command.kill_running_commands()
        self._state = None
        self._alert_probes.close()
        for notifier_id in list(self._worker_tasks):
            self._stop_worker(notifier_id)

    async def close(self, grace: float, abort: asyncio.Event) -> None:
        """Check a last time, and wait up to ``grace`` seconds for messages in progress; less if ``abort`` is set.

        Messages that are left are sent by the next run.
        """
        if self._state is None:
            return
        last = asyncio.create_task(self._send_last_messages())
        hurried = asyncio.create_task(abort.wait())
        await asyncio.wait([last, hurried], timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        if last.done() and last.exception() is not None:
            reason = "the last messages are left for the next run"
            _log.error("notify.stopped", error=last.exception(), reason=reason)
        for task in (last, hurried):
            task.cancel()
        # Save even if nothing waits: the next run reads the history from here on.
        self._saved_content = b""
        self._save_state(self._state)

    async def _send_last_messages(self) -> None:
        with suppress(JournalTemporaryError):
            self.dispatch_messages(at_once=True)
        for worker in list(self._workers.values()):
            await worker.wait_until_idle()

    @property
    def is_idle(self) -> bool:
        """Whether no message is being sent: all are delivered, or wait for a later try."""
        return all(worker.is_idle for worker in self._workers.values())

    async def _run_checks(self) -> None:
        while True:
            # The journal's disk is full, or it is locked: try again later.
            with suppress(JournalTemporaryError):
                self.dispatch_messages()
            if self._state is None:
                await self._config_changed.wait(_IDLE_INTERVAL)
            else:
                await self._context.clock.sleep(_CHECK_INTERVAL)

    def dispatch_messages(self, *, at_once: bool = False) -> None:
        """Check once: find what is due, save it, queue it. With ``at_once``, send failures now, not in groups."""
        self._apply_notifiers(self._context.config.notify)
        state = self._state
        if state is None:
            return
        now = self._context.clock.now()
        view = collect_alerts(self._context.config, self._gate, self._inboxes, self._alert_probes)
        addressed = [
            (message, [key for key, worker in self._workers.items() if message.event in worker.notifier.events])
            for message in self._collect_messages(state, view, now, at_once=at_once)
        ]
        addressed += self._collect_digests(state, view, now)
        state.waiting += [QueuedMessage(message, list(to)) for message, to in addressed if to]
        self._save_state(state)
        for message, to in addressed:
            for notifier_id in to:
                self._workers[notifier_id].enqueue(message)

    def _collect_messages(self, state: NotifyState, view: AlertView, now: float, *, at_once: bool) -> list[Message]:
        journal, config = self._context.journal, self._context.config
        last = journal.last_event_id()
        has_news = last > self._last_seen_event
        while last > self._last_seen_event:
            jobs = list_unsuccessful_jobs(journal, self._last_seen_event, _BATCH_SIZE)
            self._last_seen_event = last if len(jobs) < _BATCH_SIZE else jobs[-1].event
            group_failures(state, jobs, now)
            if not at_once:
                # The next check reads the rest of a flood.
                break
        if has_news and self._unconfirmed_alerts and has_result_since(journal, self._start_event):
            self._unconfirmed_alerts.clear()
        state.told = {key: at for key, at in state.told.items() if 0 <= now - at < REPEAT_INTERVAL}
        messages = [
            *pop_due_messages(state, now, at_once=at_once),
            *update_alerts(state, view, self._unconfirmed_alerts, now),
        ]
        if at_once or self._context.clock.monotonic() >= self._next_budget_check:
            self._next_budget_check = self._context.clock.monotonic() + _BUDGET_CHECK_INTERVAL
            cheapest = min(PRICES[rule.type] for rule in config.rules)
            messages += budget_alerts.update_budget_alerts(state, journal, config.budget, cheapest, now)
        return messages

    def _collect_digests(self, state: NotifyState, view: AlertView, now: float) -> list[tuple[Message, list[str]]]:
        recipients = {
            notifier_id: worker.notifier
            for notifier_id, worker in self._workers.items()
            if NotificationEvent.DIGEST in worker.notifier.events
        }
        times = {notifier.digest_at for notifier in recipients.values()}
        journal, budget = self._context.journal, self._context.config.budget
        return [
            (
                each.message,
                [
                    notifier_id
                    for notifier_id, notifier in recipients.items()
                    if notifier.digest_at == each.time_of_day and (notifier.digest_always or not each.is_empty)
                ],
            )
            for each in digest.pop_due_digests(state, journal, times, budget, view.alerts, now)
        ]

    def _on_message_done(self, notifier_id: str, message: Message) -> None:
        """Take a message that was sent or dropped off the list of those that wait for this notifier."""
        if self._state is not None:
            for waiting in self._state.waiting:
                if waiting.notice.id == message.id and notifier_id in waiting.to:
                    waiting.to.remove(notifier_id)
            self._state.waiting = [waiting for waiting in self._state.waiting if waiting.to]

    def _save_state(self, state: NotifyState) -> None:
        """Save the state if it has changed; a new position in the history alone is no change."""
        if state_file.dump_state(state) == self._saved_content:
            return
        state.event = self._last_seen_event
        content = state_file.dump_state(state)
        try:
            state_file.save_state(self._state_path, content)
        except OSError as error:
            if not self._save_failed:
                cause = error.strerror or error
                reason = f"the file cannot be written: {cause}; after a restart some messages may be sent again"
                _log.warning("notify.not_kept", path=self._state_path, reason=reason)
            self._save_failed = True
        else:
            self._saved_content, self._save_failed = content, False

    def _apply_notifiers(self, notifiers: tuple[Notifier, ...]) -> None:
        """Start and stop workers so that they match the configuration; messages of notifiers that stay are kept."""
        if notifiers == self._notifiers:
            return
        self._notifiers = notifiers
        if not notifiers:
            self._state = None
            state_file.delete_state(self._state_path)
        elif self._state is None:
            self._load_state()
        by_id = assign_notifier_ids(notifiers)
        for notifier_id in [notifier_id for notifier_id in self._workers if notifier_id not in by_id]:
            self._stop_worker(notifier_id)
        for notifier_id, notifier in by_id.items():
            if notifier_id in self._workers:
                self._workers[notifier_id].notifier = notifier
            else:
                self._start_worker(notifier_id, notifier)

    def _load_state(self) -> None:
        """Load what an earlier run saved; without it, only what happens from now on is reported."""
        self._start_event = self._context.journal.last_event_id()
        state = state_file.load_state(self._state_path) or NotifyState.starting_at(self._start_event)
        # An older journal may have been restored.
        state.event = min(state.event, self._start_event)
        self._state, self._last_seen_event = state, state.event
        self._unconfirmed_alerts = {key for key in state.open if key.startswith("blocked:")}

    def _start_worker(self, notifier_id: str, notifier: Notifier) -> None:
        worker = ChannelWorker(
            notifier,
            executor=self._context.executor,
            clock=self._context.clock,
            on_done=partial(self._on_message_done, notifier_id),
        )
        self._workers[notifier_id] = worker
        self._worker_tasks[notifier_id] = asyncio.create_task(worker.run())
        for waiting in self._state.waiting if self._state is not None else []:
            if notifier_id in waiting.to:
                worker.enqueue(waiting.notice)

    def _stop_worker(self, notifier_id: str) -> None:
        self._worker_tasks.pop(notifier_id).cancel()
        del self._workers[notifier_id]
