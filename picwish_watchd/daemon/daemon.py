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
from picwish_watchd.daemon.assembly import _address, _client
from picwish_watchd.daemon.drain import Drain
from picwish_watchd.daemon.process import _LETTING_GO, _READY_PATIENCE, _allow_open_files, _first, _opening
from picwish_watchd.daemon.pruner import Housekeeping
from picwish_watchd.daemon.reload_warnings import tell_of_what_hangs
from picwish_watchd.daemon.sd_notify import ServiceManager
from picwish_watchd.errors import JournalTemporaryError, WatchdError
from picwish_watchd.fs.mounts import MountWatcher
from picwish_watchd.job import Job, State
from picwish_watchd.journal.connection import ensure_journal_folder
from picwish_watchd.journal.integrity import check_local_filesystem, check_regular_file
from picwish_watchd.journal.locks import DaemonLock
from picwish_watchd.journal.writer import Journal
from picwish_watchd.metrics import Exporter
from picwish_watchd.notify.dispatcher import Herald
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
from picwish_watchd.reporting.status_line import headline
from picwish_watchd.reporting.status_report import Report
from picwish_watchd.runtime.keyed_executor import create_loop_executor
from picwish_watchd.runtime.memory_budget import MemoryBudget
from picwish_watchd.scheduling.rate_limiter import RateLimiter
from picwish_watchd.scheduling.request_log import RequestLog

_log = structlog.get_logger()

# seconds that running requests get to end
_GRACE = 30.0
# seconds that messages to people get to end
_LAST_WORDS = 5.0
# of images in memory at once
_UPLOAD_BYTES = 64 * 2**20
# seconds that `run --once` spends on the journal at its end
_TIDYING = 2.0
# seconds between looks at what other processes did to the journal
_LOOK = 1.0

#: reads configuration and key again; raises WatchdError
Loader = Callable[[], tuple[Config, str]]


class Daemon:
    """The whole house. Made from a checked configuration; `run` returns when it was told to stop."""

    def __init__(self, config: Config, key: str, *, reload: Loader | None = None, clock: Clock | None = None) -> None:
        self._config = config
        self._key = key
        self._reload = reload
        self._clock = clock or Clock()
        self._manager = ServiceManager(os.environ)
        self._stop = asyncio.Event()
        self._at_once = asyncio.Event()
        # of earlier configurations; their last requests may still run
        self._retired: list[PicwishClient] = []
        self._ready = False
        self._serving = False
        # while it was not serving yet
        self._reload_asked = False
        # the exit code
        self._ending = 0
        self._progress: tuple[Counter[State], int] = (Counter(), 0)
        self._ahead: Forecast | None = None
        #: after `run(once=True)`: what was done in this run
        self.finished: list[Job] = []

    async def run(self, *, once: bool = False) -> int:
        """Serves until SIGTERM or SIGINT; with ``once``, until nothing is left to do. Answers the exit code.

        Raises `JournalError` (also while running: then nothing more was submitted) and `JournalBusyError`; and
        `WatchdError` where the system grants too few threads to begin with.
        """
        _allow_open_files()
        asyncio.get_running_loop().set_default_executor(create_loop_executor())
        async with AsyncExitStack() as stack:
            self._handle_signals()
            lock = DaemonLock(self._config.journal)
            self._manager.extend(_opening(self._config.journal))
            await self._open(stack, lock)
            self._ending = 1 if once else 0
            self._drain = Drain(self.context, gate=self.gate, desks=self.desks)
            recover(self.context)
            _log.info("daemon.started", version=__version__, pid=os.getpid(), rules=len(self._config.rules))
            try:
                await self._serve(once=once)
            except BaseExceptionGroup as group:
                raise _first(group) from group
            finally:
                # the journal is about to close: nobody may ask it any more
                self._serving = False
                self.desks.close_all()
                _log.info("daemon.stopped")
            self.finished = self._drain.finished() if once else []
            return self._ending

    def stop(self) -> None:
        """Stops taking, lets running requests end, then `run` returns. The second time: at once."""
        if self._stop.is_set():
            self._at_once.set()
        self._stop.set()

    def progress(self) -> tuple[Counter[State], int]:
        """Number of jobs by state (on their way, or ended in this run), and of files that are not yet jobs.

        After the run: how it ended.
        """
        if self._serving and not self._stop.is_set():
            self._progress = self._drain.totals(), self.desks.settling_count
        return self._progress

    def forecast(self) -> Forecast | None:
        """How long what is left takes, and what it costs; None before the run. After it: as it ended."""
        if self._serving and not self._stop.is_set():
            self._ahead = self._drain.forecast(self._pacer.rate)
        return self._ahead

    @property
    def hanging(self) -> bool:
        """Whether a thread is still at work after `run` has ended, as on a mount that does not answer."""
        return self.context.executor.has_running

    async def _open(self, stack: AsyncExitStack, lock: DaemonLock) -> None:
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
        self._mounts = MountWatcher()
        stack.callback(self._mounts.close)
        departures = RequestLog(journal_path, self._clock)
        stack.callback(departures.close)
        self._pacer = RateLimiter(self._config.api.qps, self._clock, departures)
        tally = Counters()
        self.context = StepContext(
            config=self._config,
            journal=journal,
            spool=spool,
            clock=self._clock,
            counters=tally,
            client=_client(self._config, self._key, tally),
        )
        stack.callback(self.context.close)
        stack.push_async_callback(self._close_client)
        self.gate = Gate(self.context, pacer=self._pacer, changed=self._tell)
        self.desks = Inboxes(self.context, changed=self._tell)
        self._report = Report(self.context, self.gate, self.desks, self._pacer)
        self._exporter = Exporter(self.context, self.gate, self.desks, late=self._late)
        stack.push_async_callback(self._exporter.aclose)
        self._exporter.open(self._config.http)
        self._herald = Herald(self.context, self.gate, self.desks)

    async def _close_client(self) -> None:
        for client in (*self._retired, self.context.client):
            await client.aclose()

    async def _serve(self, *, once: bool) -> None:
        """Runs all loops until told to stop, then lets the running requests end."""
        context = self.context
        collect = Collect(context, gate=self.gate, pacer=self._pacer)
        submit = Submit(context, gate=self.gate, pacer=self._pacer, budget=MemoryBudget(_UPLOAD_BYTES), collect=collect)
        async with asyncio.TaskGroup() as group:
            steps = [Deliver(context).run(), collect.run(), submit.run(), Dispose(context).run()]
            workers = [group.create_task(step) for step in steps]
            loops = [self._pacer.run(), self.gate.run(), self.gate.probe(), self._look(), self._feed()]
            loops.append(self._finish() if once else Housekeeping(context).run())
            loops.append(self._herald.run())
            helpers = [group.create_task(loop) for loop in loops]
            self._group, self._serving = group, True
            self._tell()
            for rule in context.config.rules:
                self.desks.open(rule, group)
            if self._reload_asked:
                self.reload()
            await self._stop.wait()
            await self._wind_up(workers)
            await self._herald.close(_LAST_WORDS, self._at_once)
            for helper in helpers:
                helper.cancel()

    async def _wind_up(self, workers: list[asyncio.Task[None]]) -> None:
        """Nothing new is begun; what has begun gets `_GRACE` seconds, or none after a second signal."""
        self._manager.stopping()
        _log.info("daemon.stopping", reason="nothing new is begun; what runs gets some seconds to end")
        self._manager.extend(_GRACE + _LETTING_GO)
        self.context.stopping = True
        self.desks.close_all()
        bells = self.context.wakeups
        for bell in (bells.submit, bells.collect, bells.deliver, bells.dispose):
            bell.notify()
        impatient = asyncio.create_task(self._at_once.wait())
        ended = asyncio.create_task(_all_ended(workers))
        await asyncio.wait([ended, impatient], timeout=_GRACE, return_when=asyncio.FIRST_COMPLETED)
        for task in (impatient, ended, *workers):
            task.cancel()

    async def _finish(self) -> None:
        await self._drain.run()
        await Housekeeping(self.context).tidy(at_most=_TIDYING)
        self._ending = self._drain.exit_code()
        self.progress()
        self._ahead = self._drain.forecast(self._pacer.rate, afresh=True)
        self.stop()

    async def _look(self) -> None:
        """Notices what commands did to the journal, and tells how things stand."""
        patient_until = self._clock.monotonic() + _READY_PATIENCE
        version = self.context.journal.data_version()
        bells = self.context.wakeups
        while True:
            await self._clock.sleep(_LOOK)
            if points := self._mounts.poll_changed_points():
                self.desks.rescan_after_mount_change(points)
                # an outbox may have come
                self.context.journal.end_pauses()
            if (now := self._version(version)) != version:
                version = now
                # a person may have said retry
                self.context.journal.end_pauses()
                for bell in (bells.submit, bells.collect, bells.deliver, bells.dispose):
                    bell.notify()
            self.desks.check_watchers()
            self._report.look()
            self.context.journal_outage.check_recovery()
            if self._clock.monotonic() > patient_until:
                # an inbox whose walk hangs must not keep the others from being served
                self._be_ready()
            self._summary()
            self._exporter.tell()

    def _be_ready(self) -> None:
        if not self._ready:
            self._ready = True
            self._manager.ready()
            self._summary()
            _log.info("daemon.ready")

    async def _feed(self) -> None:
        """Feeds systemd's watchdog for as long as the event loop, the journal, the watchers and all steps answer."""
        period, told = self._manager.watchdog, ""
        while period is not None:
            stuck = self._stuck(period / 3)
            if not stuck:
                self._manager.alive()
            elif stuck != told:
                _log.error("daemon.stuck", reason=f"no progress: {stuck}; unless it goes on, systemd starts us again")
            told = stuck
            # soon again where something is late: after a pause of the whole machine everything is, for a moment
            await self._clock.sleep(min(1.0, period / 10) if stuck else period / 3)

    def _stuck(self, grace: float) -> str:
        """What should have turned more than ``grace`` seconds ago and has not; empty if all is well.

        A walk that hangs is no reason: it blocks its own inbox only, and a new daemon would hang in it as well.
        """
        if self.context.stopping:
            # bounded by `_GRACE`; the loops end one by one
            return ""
        late = self._late(grace)
        watchers = [desk.watcher.is_alive() or desk.watcher.ident is None for desk in self.desks.list_active()]
        late += ["watchers"] if watchers and not any(watchers) else []
        return ", ".join(late)

    def _late(self, grace: float) -> list[str]:
        """The loops that should have turned more than ``grace`` seconds ago and have not."""
        return self.context.heartbeat.overdue(grace) + (["pacer"] if self._pacer.overdue_seconds > grace else [])

    def _summary(self) -> None:
        if not self._manager.listens:
            return
        with suppress(JournalTemporaryError):
            told = headline(self.context, gate=self.gate, desks=self.desks)
            self._manager.status(f"{self._report.refused}; {told}" if self._report.refused else told)

    def _version(self, last: int) -> int:
        """The journal's version, or the ``last`` one where it cannot answer at present."""
        with suppress(JournalTemporaryError):
            last = self.context.journal.data_version()
            self.context.heartbeat.beat("journal")
        return last

    def _tell(self) -> None:
        """Called whenever something changes that is seen from outside."""
        self._exporter.tell()
        if self.desks.has_scanned_all:
            self._be_ready()
        self._report.tell()

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
        self._reload_asked = not self._serving
        if self._reload is None or self._stop.is_set() or not self._serving:
            return
        self._manager.reloading()
        try:
            config, key = self._reload()
            # before anything is closed: a journal that is full or locked changes nothing
            for rule in config.rules:
                self.context.journal.save_rule_settings(rule.name, rule.to_json())
        except WatchdError as error:
            _log.error("config.refused", reason=error.message)
            self._report.refused = f"reload refused, the old configuration is in force ({error.message})"
            self._tell()
        else:
            self._report.refused = ""
            self._take_over(config, key)
        finally:
            if self._ready:
                self._manager.ready()
            self._summary()

    def _take_over(self, config: Config, key: str) -> None:
        context = self.context
        if config.journal != context.config.journal:
            _log.warning("config.needs_restart", key="journal")
            # and with it the spool; the file no longer says all: nobody is to take the journal that we have for its own
            config = replace(config, journal=context.config.journal, digest=None)
        if _address(config) == _address(context.config):
            context.client.replace_key(key)
        else:
            self._retired.append(context.client)
            context.client = _client(config, key, context.counters)
        before, context.config = context.config, config
        tell_of_what_hangs(context, before)
        self._pacer.set_qps(config.api.qps)
        self.desks.apply_config(self._group)
        self._exporter.reopen(config.http)
        self._herald.renew()
        self._tell()
        self.gate.probe_now()
        _log.info("config.reloaded", rules=len(config.rules))
        warn_orphaned_jobs(context)


async def _all_ended(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks)
