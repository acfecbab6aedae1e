"""The life of the daemon: start, serve until stopped, shut down within a time limit."""

import asyncio
import os
import signal
from collections import Counter
from contextlib import AsyncExitStack

import structlog

from picwish_watchd import __version__
from picwish_watchd.clock import Clock
from picwish_watchd.config.model import Config
from picwish_watchd.daemon.assembly import Services, build_services
from picwish_watchd.daemon.changes import Changes
from picwish_watchd.daemon.drain import Drain
from picwish_watchd.daemon.monitor import Monitor
from picwish_watchd.daemon.process import EXIT_TIMEOUT, first_error, raise_open_file_limit, startup_timeout
from picwish_watchd.daemon.pruner import JournalPruner
from picwish_watchd.daemon.reloader import ConfigLoader, Reloader
from picwish_watchd.daemon.sd_notify import ServiceManager
from picwish_watchd.daemon.watchdog import Watchdog
from picwish_watchd.job import Job, State
from picwish_watchd.pipeline.recover import recover
from picwish_watchd.reporting.forecast import Forecast
from picwish_watchd.runtime.keyed_executor import create_loop_executor

_log = structlog.get_logger()

#: Seconds that running requests get to end after the first signal.
_SHUTDOWN_GRACE = 30.0
#: Seconds that notifications on their way get to end.
_NOTIFY_GRACE = 5.0
#: Seconds that `run --once` spends on pruning the journal at its end.
_PRUNE_SECONDS = 2.0


class Daemon:
    """One run of the daemon from a validated configuration. `run` returns after `stop`."""

    def __init__(
        self, config: Config, key: str, *, reload: ConfigLoader | None = None, clock: Clock | None = None
    ) -> None:
        """``reload`` reads configuration and key again at SIGHUP; without it, SIGHUP changes nothing."""
        self._config = config
        self._key = key
        self._load_config = reload
        self._clock = clock or Clock()
        self._service_manager = ServiceManager(os.environ)
        self._changes = Changes()
        self._stop_requested = asyncio.Event()
        self._abort_requested = asyncio.Event()
        self._services: Services | None = None
        self._drain: Drain | None = None
        #: Set while the loops run. The journal is open then.
        self._reloader: Reloader | None = None
        self._serving = False
        self._reload_pending = False
        self._exit_code = 0
        self._last_progress: tuple[Counter[State], int] = (Counter(), 0)
        self._last_forecast: Forecast | None = None
        #: Jobs that reached `done`; filled at the end of `run(once=True)`.
        self.finished_jobs: list[Job] = []

    @property
    def services(self) -> Services:
        """The parts of the daemon. Raises `RuntimeError` before `run` has built them."""
        if self._services is None:
            raise RuntimeError("the daemon has not been started")
        return self._services

    @property
    def is_serving(self) -> bool:
        """Whether the loops run."""
        return self._serving

    @property
    def has_stuck_threads(self) -> bool:
        """Whether a thread is still busy after `run` has ended, for example on a mount that does not answer."""
        return self.services.context.executor.has_unfinished_calls

    async def run(self, *, once: bool = False) -> int:
        """Serve until SIGTERM or SIGINT; with ``once``, until nothing is left to do. Return the exit code.

        Raises `JournalError` (also later: nothing more was submitted then), `JournalBusyError`, and `WatchdError`
        if the system grants too few threads to start.
        """
        raise_open_file_limit()
        asyncio.get_running_loop().set_default_executor(create_loop_executor())
        async with AsyncExitStack() as stack:
            self._handle_signals()
            self._service_manager.extend_timeout(startup_timeout(self._config.journal))
            services = self._services = await build_services(
                self._config, self._key, self._clock, stack=stack, changes=self._changes
            )
            context = services.context
            self._exit_code = 1 if once else 0
            drain = self._drain = Drain(
                context.journal, self._clock, lambda: context.config, gate=services.gate, inboxes=services.inboxes
            )
            recover(context)
            _log.info("daemon.started", version=__version__, pid=os.getpid(), rules=len(self._config.rules))
            try:
                await self._run_loops(services, drain, once=once)
            except BaseExceptionGroup as group:
                raise first_error(group) from group
            finally:
                # The journal is about to close. Nobody may ask it any more.
                self._serving = False
                services.inboxes.close_all()
                _log.info("daemon.stopped")
            self.finished_jobs = drain.list_finished_jobs() if once else []
            return self._exit_code

    def stop(self) -> None:
        """Accept no new work, let running requests end, then make `run` return. The second call ends it at once."""
        if self._stop_requested.is_set():
            self._abort_requested.set()
        self._stop_requested.set()

    def reload(self) -> None:
        """Read the configuration and the key again; before the loops run, as soon as they do."""
        self._reload_pending = not self._serving
        if self._reloader is not None and self._serving and not self._stop_requested.is_set():
            self._reloader.reload()

    def progress(self) -> tuple[Counter[State], int]:
        """Return the number of jobs by state (unfinished, or ended in this run), and of files that are not yet jobs.

        After the run, return the figures of its end.
        """
        if self._drain is not None and self._serving and not self._stop_requested.is_set():
            self._last_progress = self._drain.counts_by_state(), self.services.inboxes.settling_count
        return self._last_progress

    def forecast(self) -> Forecast | None:
        """Return how long the rest takes and what it costs; None before the run, the last forecast after it."""
        if self._drain is not None and self._serving and not self._stop_requested.is_set():
            self._last_forecast = self._drain.forecast(self.services.rate_limiter.rate)
        return self._last_forecast

    async def _run_loops(self, services: Services, drain: Drain, *, once: bool) -> None:
        """Run all loops until `stop`, then let the running requests end."""
        context, steps = services.context, services.steps
        monitor = Monitor(services, self._service_manager, self._clock)
        pruner = JournalPruner(context.journal, self._clock, lambda: context.config)
        watchdog = Watchdog(context, services.inboxes, services.rate_limiter, self._service_manager)
        loops = [
            services.rate_limiter.run(),
            services.gate.run(),
            services.gate.probe(),
            monitor.run(),
            watchdog.run(),
            self._run_until_drained(services, drain, pruner) if once else pruner.run(),
            services.dispatcher.run(),
        ]
        async with asyncio.TaskGroup() as group:
            workers = [
                group.create_task(step.run()) for step in (steps.deliver, steps.collect, steps.submit, steps.dispose)
            ]
            background = [group.create_task(loop) for loop in loops]
            if self._load_config is not None:
                self._reloader = Reloader(services, monitor, self._service_manager, group, self._load_config)
            self._serving = True
            self._changes.subscribe(monitor.on_change)
            monitor.on_change()
            for rule in context.config.rules:
                services.inboxes.open(rule, group)
            if self._reload_pending:
                self.reload()
            await self._stop_requested.wait()
            await self._shut_down(services, workers)
            await services.dispatcher.close(_NOTIFY_GRACE, self._abort_requested)
            for task in background:
                task.cancel()

    async def _shut_down(self, services: Services, workers: list[asyncio.Task[None]]) -> None:
        """Stop intake and give the steps `_SHUTDOWN_GRACE` seconds to end, or none after a second signal."""
        self._service_manager.notify_stopping()
        _log.info("daemon.stopping", reason="nothing new is started; running requests get some seconds to end")
        self._service_manager.extend_timeout(_SHUTDOWN_GRACE + EXIT_TIMEOUT)
        services.context.stopping = True
        services.inboxes.close_all()
        services.context.wakeups.notify_steps()
        aborted = asyncio.create_task(self._abort_requested.wait())
        ended = asyncio.create_task(_wait_for_all(workers))
        await asyncio.wait([ended, aborted], timeout=_SHUTDOWN_GRACE, return_when=asyncio.FIRST_COMPLETED)
        for task in (aborted, ended, *workers):
            task.cancel()

    async def _run_until_drained(self, services: Services, drain: Drain, pruner: JournalPruner) -> None:
        await drain.run()
        await pruner.prune(at_most=_PRUNE_SECONDS)
        self._exit_code = drain.compute_exit_code()
        self.progress()
        self._last_forecast = drain.forecast(services.rate_limiter.rate, refresh=True)
        self.stop()

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        # SIGHUP was blocked while the program was loading. One that came meanwhile is obeyed now.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


async def _wait_for_all(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks)
