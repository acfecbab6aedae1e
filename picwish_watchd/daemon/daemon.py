"""The composition root: the only place where the parts are made and put together, started and stopped."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

import structlog

from picwish_watchd import __version__
from picwish_watchd.clock import Clock
from picwish_watchd.config.model import Config
from picwish_watchd.counters import Counters
from picwish_watchd.daemon.assembly import build_client, connection_settings
from picwish_watchd.daemon.drain import Drain
from picwish_watchd.daemon.process import (
    EXIT_TIMEOUT,
    READY_TIMEOUT,
    first_error,
    raise_open_file_limit,
    startup_timeout,
)
from picwish_watchd.daemon.pruner import JournalPruner
from picwish_watchd.daemon.reload_warnings import warn_stuck_folders
from picwish_watchd.daemon.sd_notify import ServiceManager
from picwish_watchd.errors import JournalTemporaryError, WatchdError
from picwish_watchd.fs.mounts import MountWatcher
from picwish_watchd.job import Job, State
from picwish_watchd.journal.connection import ensure_journal_folder
from picwish_watchd.journal.integrity import check_local_filesystem, check_regular_file
from picwish_watchd.journal.locks import DaemonLock
from picwish_watchd.journal.writer import Journal
from picwish_watchd.metrics import Exporter
from picwish_watchd.notify.dispatcher import NotificationDispatcher
from picwish_watchd.outbox.spool import Spool, spool_folder
from picwish_watchd.picwish import PicwishClient
from picwish_watchd.pipeline.collect import Collect
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pipeline.deliver import Deliver
from picwish_watchd.pipeline.dispose import Dispose
from picwish_watchd.pipeline.gate import Gate
from picwish_watchd.pipeline.inboxes import Inboxes
from picwish_watchd.pipeline.recover import recover, warn_orphaned_jobs
from picwish_watchd.pipeline.submit import Submit
from picwish_watchd.reporting.forecast import Forecast
from picwish_watchd.reporting.status_line import render_status_line
from picwish_watchd.reporting.status_report import ReportPublisher
from picwish_watchd.runtime.keyed_executor import create_loop_executor
from picwish_watchd.runtime.memory_budget import MemoryBudget
from picwish_watchd.scheduling.rate_limiter import RateLimiter
from picwish_watchd.scheduling.request_log import RequestLog

_log = structlog.get_logger()

# seconds that running requests get to end
_SHUTDOWN_GRACE = 30.0
# seconds that messages to people get to end
_NOTIFY_GRACE = 5.0
# of images in memory at once
_UPLOAD_MEMORY = 64 * 2**20
# seconds that `run --once` spends on the journal at its end
_PRUNE_SECONDS = 2.0
# seconds between looks at what other processes did to the journal
_MONITOR_INTERVAL = 1.0

#: reads configuration and key again; raises WatchdError
ConfigLoader = Callable[[], tuple[Config, str]]


class Daemon:
    """The whole house. Made from a checked configuration; `run` returns when it was told to stop."""

    def __init__(
        self, config: Config, key: str, *, reload: ConfigLoader | None = None, clock: Clock | None = None
    ) -> None:
        self._config = config
        self._key = key
        self._load_config = reload
        self._clock = clock or Clock()
        self._service_manager = ServiceManager(os.environ)
        self._stop_requested = asyncio.Event()
        self._abort_requested = asyncio.Event()
        # of earlier configurations; their last requests may still run
        self._retired_clients: list[PicwishClient] = []
        self._ready = False
        self._serving = False
        # while it was not serving yet
        self._reload_pending = False
        # the exit code
        self._exit_code = 0
        self._last_progress: tuple[Counter[State], int] = (Counter(), 0)
        self._last_forecast: Forecast | None = None
        #: after `run(once=True)`: what was done in this run
        self.finished_jobs: list[Job] = []

    async def run(self, *, once: bool = False) -> int:
        """Serves until SIGTERM or SIGINT; with ``once``, until nothing is left to do. Answers the exit code.

        Raises `JournalError` (also while running: then nothing more was submitted) and `JournalBusyError`; and
        `WatchdError` where the system grants too few threads to begin with.
        """
        raise_open_file_limit()
        asyncio.get_running_loop().set_default_executor(create_loop_executor())
        async with AsyncExitStack() as stack:
            self._handle_signals()
            lock = DaemonLock(self._config.journal)
            self._service_manager.extend_timeout(startup_timeout(self._config.journal))
            await self._build_services(stack, lock)
            self._exit_code = 1 if once else 0
            self._drain = Drain(self.context, gate=self.gate, desks=self.inboxes)
            recover(self.context)
            _log.info("daemon.started", version=__version__, pid=os.getpid(), rules=len(self._config.rules))
            try:
                await self._run_loops(once=once)
            except BaseExceptionGroup as group:
                raise first_error(group) from group
            finally:
                # the journal is about to close: nobody may ask it any more
                self._serving = False
                self.inboxes.close_all()
                _log.info("daemon.stopped")
            self.finished_jobs = self._drain.list_finished_jobs() if once else []
            return self._exit_code

    def stop(self) -> None:
        """Stops taking, lets running requests end, then `run` returns. The second time: at once."""
        if self._stop_requested.is_set():
            self._abort_requested.set()
        self._stop_requested.set()

    def progress(self) -> tuple[Counter[State], int]:
        """Number of jobs by state (on their way, or ended in this run), and of files that are not yet jobs.

        After the run: how it ended.
        """
        if self._serving and not self._stop_requested.is_set():
            self._last_progress = self._drain.counts_by_state(), self.inboxes.settling_count
        return self._last_progress

    def forecast(self) -> Forecast | None:
        """How long what is left takes, and what it costs; None before the run. After it: as it ended."""
        if self._serving and not self._stop_requested.is_set():
            self._last_forecast = self._drain.forecast(self._rate_limiter.rate)
        return self._last_forecast

    @property
    def has_stuck_threads(self) -> bool:
        """Whether a thread is still at work after `run` has ended, as on a mount that does not answer."""
        return self.context.executor.has_running

    async def _build_services(self, stack: AsyncExitStack, lock: DaemonLock) -> None:
        journal_path = self._config.journal
        check_regular_file(journal_path)
        check_local_filesystem(journal_path)
        ensure_journal_folder(journal_path)
        lock.acquire()
        stack.callback(lock.release)
        journal = Journal.open_for_writing(journal_path, self._clock)
        stack.callback(journal.close)
        spool = Spool(spool_folder(journal_path))
        spool.ensure_folder()
        self._mount_watcher = MountWatcher()
        stack.callback(self._mount_watcher.close)
        departures = RequestLog(journal_path, self._clock)
        stack.callback(departures.close)
        self._rate_limiter = RateLimiter(self._config.api.qps, self._clock, departures)
        tally = Counters()
        self.context = StepContext(
            config=self._config,
            journal=journal,
            spool=spool,
            clock=self._clock,
            counters=tally,
            client=build_client(self._config, self._key, tally),
        )
        stack.callback(self.context.close)
        stack.push_async_callback(self._close_clients)
        self.gate = Gate(self.context, pacer=self._rate_limiter, changed=self._on_change)
        self.inboxes = Inboxes(self.context, changed=self._on_change)
        self._report_publisher = ReportPublisher(self.context, self.gate, self.inboxes, self._rate_limiter)
        self._exporter = Exporter(self.context, self.gate, self.inboxes, overdue_loops=self._overdue_loops)
        stack.push_async_callback(self._exporter.aclose)
        self._exporter.open(self._config.http)
        self._dispatcher = NotificationDispatcher(self.context, self.gate, self.inboxes)

    async def _close_clients(self) -> None:
        for client in (*self._retired_clients, self.context.client):
            await client.aclose()

    async def _run_loops(self, *, once: bool) -> None:
        """Runs all loops until told to stop, then lets the running requests end."""
        context = self.context
        collect = Collect(context, gate=self.gate, pacer=self._rate_limiter)
        submit = Submit(
            context,
            gate=self.gate,
            rate_limiter=self._rate_limiter,
            memory_budget=MemoryBudget(_UPLOAD_MEMORY),
            tracker=collect,
            handle_result=collect.handle_task_success,
        )
        async with asyncio.TaskGroup() as group:
            steps = [Deliver(context).run(), collect.run(), submit.run(), Dispose(context).run()]
            workers = [group.create_task(step) for step in steps]
            loops = [
                self._rate_limiter.run(),
                self.gate.run(),
                self.gate.probe(),
                self._monitor(),
                self._feed_watchdog(),
            ]
            loops.append(self._run_until_drained() if once else JournalPruner(context).run())
            loops.append(self._dispatcher.run())
            helpers = [group.create_task(loop) for loop in loops]
            self._task_group, self._serving = group, True
            self._on_change()
            for rule in context.config.rules:
                self.inboxes.open(rule, group)
            if self._reload_pending:
                self.reload()
            await self._stop_requested.wait()
            await self._shut_down(workers)
            await self._dispatcher.close(_NOTIFY_GRACE, self._abort_requested)
            for helper in helpers:
                helper.cancel()

    async def _shut_down(self, workers: list[asyncio.Task[None]]) -> None:
        """Nothing new is begun; what has begun gets `_GRACE` seconds, or none after a second signal."""
        self._service_manager.notify_stopping()
        _log.info("daemon.stopping", reason="nothing new is begun; what runs gets some seconds to end")
        self._service_manager.extend_timeout(_SHUTDOWN_GRACE + EXIT_TIMEOUT)
        self.context.stopping = True
        self.inboxes.close_all()
        bells = self.context.wakeups
        for bell in (bells.submit, bells.collect, bells.deliver, bells.dispose):
            bell.notify()
        impatient = asyncio.create_task(self._abort_requested.wait())
        ended = asyncio.create_task(_wait_for_all(workers))
        await asyncio.wait([ended, impatient], timeout=_SHUTDOWN_GRACE, return_when=asyncio.FIRST_COMPLETED)
        for task in (impatient, ended, *workers):
            task.cancel()

    async def _run_until_drained(self) -> None:
        await self._drain.run()
        await JournalPruner(self.context).prune(at_most=_PRUNE_SECONDS)
        self._exit_code = self._drain.compute_exit_code()
        self.progress()
        self._last_forecast = self._drain.forecast(self._rate_limiter.rate, afresh=True)
        self.stop()

    async def _monitor(self) -> None:
        """Notices what commands did to the journal, and tells how things stand."""
        patient_until = self._clock.monotonic() + READY_TIMEOUT
        version = self.context.journal.data_version()
        bells = self.context.wakeups
        while True:
            await self._clock.sleep(_MONITOR_INTERVAL)
            if points := self._mount_watcher.poll_changed_points():
                self.inboxes.rescan_after_mount_change(points)
                # an outbox may have come
                self.context.journal.end_pauses()
            if (now := self._read_data_version(version)) != version:
                version = now
                # a person may have said retry
                self.context.journal.end_pauses()
                for bell in (bells.submit, bells.collect, bells.deliver, bells.dispose):
                    bell.notify()
            self.inboxes.check_watchers()
            self._report_publisher.refresh()
            self.context.journal_outage.check_recovery()
            if self._clock.monotonic() > patient_until:
                # an inbox whose walk hangs must not keep the others from being served
                self._mark_ready()
            self._update_status()
            self._exporter.update_loop_state()

    def _mark_ready(self) -> None:
        if not self._ready:
            self._ready = True
            self._service_manager.notify_ready()
            self._update_status()
            _log.info("daemon.ready")

    async def _feed_watchdog(self) -> None:
        """Feeds systemd's watchdog for as long as the event loop, the journal, the watchers and all steps answer."""
        period, told = self._service_manager.watchdog_seconds, ""
        while period is not None:
            stuck = self._describe_stuck(period / 3)
            if not stuck:
                self._service_manager.ping_watchdog()
            elif stuck != told:
                _log.error("daemon.stuck", reason=f"no progress: {stuck}; unless it goes on, systemd starts us again")
            told = stuck
            # soon again where something is late: after a pause of the whole machine everything is, for a moment
            await self._clock.sleep(min(1.0, period / 10) if stuck else period / 3)

    def _describe_stuck(self, grace: float) -> str:
        """What should have turned more than ``grace`` seconds ago and has not; empty if all is well.

        A walk that hangs is no reason: it blocks its own inbox only, and a new daemon would hang in it as well.
        """
        if self.context.stopping:
            # bounded by `_GRACE`; the loops end one by one
            return ""
        late = self._overdue_loops(grace)
        watchers = [desk.watcher.is_alive() or desk.watcher.ident is None for desk in self.inboxes.list_active()]
        late += ["watchers"] if watchers and not any(watchers) else []
        return ", ".join(late)

    def _overdue_loops(self, grace: float) -> list[str]:
        """The loops that should have turned more than ``grace`` seconds ago and have not."""
        return self.context.heartbeat.overdue(grace) + (["pacer"] if self._rate_limiter.overdue_seconds > grace else [])

    def _update_status(self) -> None:
        if not self._service_manager.is_available:
            return
        with suppress(JournalTemporaryError):
            told = render_status_line(self.context, gate=self.gate, desks=self.inboxes)
            self._service_manager.send_status(
                f"{self._report_publisher.reload_error}; {told}" if self._report_publisher.reload_error else told
            )

    def _read_data_version(self, last: int) -> int:
        """The journal's version, or the ``last`` one where it cannot answer at present."""
        with suppress(JournalTemporaryError):
            last = self.context.journal.data_version()
            self.context.heartbeat.beat("journal")
        return last

    def _on_change(self) -> None:
        """Called whenever something changes that is seen from outside."""
        self._exporter.update_loop_state()
        if self.inboxes.has_scanned_all:
            self._mark_ready()
        self._report_publisher.publish()

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        # one that came while we were loaded is obeyed
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    def reload(self) -> None:
        """Reads the configuration and the key again; a faulty one changes nothing."""
        # then it is made as soon as it can be
        self._reload_pending = not self._serving
        if self._load_config is None or self._stop_requested.is_set() or not self._serving:
            return
        self._service_manager.notify_reloading()
        try:
            config, key = self._load_config()
            # before anything is closed: a journal that is full or locked changes nothing
            for rule in config.rules:
                self.context.journal.save_rule_settings(rule.name, rule.to_json())
        except WatchdError as error:
            _log.error("config.refused", reason=error.message)
            self._report_publisher.reload_error = f"reload refused, the old configuration is in force ({error.message})"
            self._on_change()
        else:
            self._report_publisher.reload_error = ""
            self._apply_config(config, key)
        finally:
            if self._ready:
                self._service_manager.notify_ready()
            self._update_status()

    def _apply_config(self, config: Config, key: str) -> None:
        context = self.context
        if config.journal != context.config.journal:
            _log.warning("config.needs_restart", key="journal")
            # and with it the spool; the file no longer says all: nobody is to take the journal that we have for its own
            config = replace(config, journal=context.config.journal, digest=None)
        if connection_settings(config) == connection_settings(context.config):
            context.client.replace_key(key)
        else:
            self._retired_clients.append(context.client)
            context.client = build_client(config, key, context.counters)
        before, context.config = context.config, config
        warn_stuck_folders(context, before)
        self._rate_limiter.set_qps(config.api.qps)
        self.inboxes.apply_config(self._task_group)
        self._exporter.reopen(config.http)
        self._dispatcher.signal_config_change()
        self._on_change()
        self.gate.probe_now()
        _log.info("config.reloaded", rules=len(config.rules))
        warn_orphaned_jobs(context)


async def _wait_for_all(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks)
