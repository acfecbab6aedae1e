"""The composition root: the only place where the parts are made and put together, started and stopped."""

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass

import structlog

from picwish_watchd import __version__
from picwish_watchd.clock import Clock
from picwish_watchd.config import Config, Observer, Rule
from picwish_watchd.errors import WatchdError
from picwish_watchd.files.observe import Inbox, Walked, Watcher
from picwish_watchd.files.spool import Spool
from picwish_watchd.files.walk import NameFilter, Sighting
from picwish_watchd.job import UNFINISHED, Job, State
from picwish_watchd.journal import DaemonLock, Journal, prepare_folder, refuse_network
from picwish_watchd.notify import ServiceManager
from picwish_watchd.picwish import PicwishClient
from picwish_watchd.pipeline.budget import ByteBudget
from picwish_watchd.pipeline.collect import Collect
from picwish_watchd.pipeline.context import Context, spool_folder
from picwish_watchd.pipeline.deliver import Deliver
from picwish_watchd.pipeline.dispose import Dispose
from picwish_watchd.pipeline.gate import Gate, Reason
from picwish_watchd.pipeline.intake import Intake
from picwish_watchd.pipeline.pacer import Pacer
from picwish_watchd.pipeline.recover import recover
from picwish_watchd.pipeline.submit import Submit

_log = structlog.get_logger()

_GRACE = 30.0  # seconds that running requests get to end
_UPLOAD_BYTES = 64 * 2**20  # of images in memory at once
_LOOK = 1.0  # seconds between looks at what other processes did to the journal
_API_PATIENCE = 300.0  # seconds that `run --once` waits for a dead API

Loader = Callable[[], tuple[Config, str]]  #: reads configuration and key again; raises WatchdError


@dataclass(slots=True)
class _Desk:
    """One rule at work."""

    rule: Rule
    intake: Intake
    watcher: Watcher
    task: asyncio.Task[None]
    walked: bool = False  #: at least once
    away: str | None = None


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
        self._desks: dict[str, _Desk] = {}
        self._retired: list[PicwishClient] = []  # of earlier configurations; their last requests may still run
        self._ready = False
        self._started = self._clock.now()
        self._since = 0  # the last line of history before this run
        self.finished: list[Job] = []  #: after `run(once=True)`: what was done in this run

    async def run(self, *, once: bool = False) -> int:
        """Serves until SIGTERM or SIGINT; with ``once``, until nothing is left to do. Answers the exit code.

        Raises `JournalError` (also while running: then nothing more was submitted) and `JournalBusyError`.
        """
        async with AsyncExitStack() as stack:
            lock = DaemonLock(self._config.journal)
            await self._open(stack, lock)
            self._handle_signals()
            self._since = self.context.journal.last_event()
            recover(self.context)
            _log.info("daemon.started", version=__version__, pid=os.getpid(), rules=len(self._config.rules))
            try:
                await self._serve(once=once)
            except BaseExceptionGroup as group:
                raise _first(group) from group
            finally:
                _log.info("daemon.stopped")
            if once:
                self.finished = self.context.journal.changed_since(self._since, (State.DONE,))
                return self._verdict()
            return 0

    def stop(self) -> None:
        """Stops taking, lets running requests end, then `run` returns. The second time: at once."""
        if self._stop.is_set():
            self._at_once.set()
        self._stop.set()

    @property
    def settling(self) -> int:
        """Number of files that were seen and are not yet jobs."""
        return sum(desk.intake.waiting for desk in self._desks.values())

    def totals_of_this_run(self) -> Counter[State]:
        """Number of jobs by state: those on their way, and those that ended since `run` began."""
        if self._stop.is_set() or not self._desks:
            return Counter()
        return Counter(self.context.journal.counts_since(self._since))

    @property
    def hanging(self) -> bool:
        """Whether a thread is still at work after `run` has ended, as on a mount that does not answer."""
        return self.context.lanes.busy

    async def _open(self, stack: AsyncExitStack, lock: DaemonLock) -> None:
        journal_path = self._config.journal
        refuse_network(journal_path)
        prepare_folder(journal_path)
        lock.acquire()
        stack.callback(lock.release)
        journal = Journal.open_for_writing(journal_path, self._clock)
        stack.callback(journal.close)
        spool = Spool(spool_folder(journal_path))
        spool.prepare()
        self.context = Context(
            config=self._config, journal=journal, spool=spool, clock=self._clock,
            client=_client(self._config, self._key), look_again=self._look_again,
        )  # fmt: skip
        stack.callback(self.context.lanes.close)
        stack.push_async_callback(self._close_client)
        self._pacer = Pacer(self._config.api.qps, self._clock)
        self.gate = Gate(self.context, pacer=self._pacer, changed=self._report)
        for rule in self._config.rules:
            journal.remember_rule(rule.name, rule.to_json())

    async def _close_client(self) -> None:
        for client in (*self._retired, self.context.client):
            await client.aclose()

    async def _serve(self, *, once: bool) -> None:
        """Runs all loops until told to stop, then lets the running requests end."""
        context = self.context
        collect = Collect(context, gate=self.gate, pacer=self._pacer)
        submit = Submit(context, gate=self.gate, pacer=self._pacer, budget=ByteBudget(_UPLOAD_BYTES), collect=collect)
        async with asyncio.TaskGroup() as group:
            steps = [Deliver(context).run(), collect.run(), submit.run(), Dispose(context).run()]
            workers = [group.create_task(step) for step in steps]
            loops = [self._pacer.run(), self.gate.run(), self.gate.probe(), self._look(), self._feed()]
            if once:
                loops.append(self._drain())
            helpers = [group.create_task(loop) for loop in loops]
            self._start_rules(group)
            await self._stop.wait()
            await self._wind_up(workers)
            for helper in helpers:
                helper.cancel()

    async def _wind_up(self, workers: list[asyncio.Task[None]]) -> None:
        """Nothing new is begun; what has begun gets `_GRACE` seconds, or none after a second signal."""
        self._manager.stopping()
        self.context.stopping = True
        for desk in self._desks.values():
            desk.watcher.stop()
            desk.task.cancel()
        bells = self.context.bells
        for bell in (bells.submit, bells.collect, bells.deliver, bells.dispose):
            bell.ring()
        impatient = asyncio.create_task(self._at_once.wait())
        ended = asyncio.create_task(_all_ended(workers))
        await asyncio.wait([ended, impatient], timeout=_GRACE, return_when=asyncio.FIRST_COMPLETED)
        for task in (impatient, ended, *workers):
            task.cancel()

    def _start_rules(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        for rule in self.context.config.rules:
            self._start_rule(rule)

    def _start_rule(self, rule: Rule) -> None:
        intake = Intake(self.context, rule)
        loop = asyncio.get_running_loop()

        def report(name: str, news: list[Sighting] | Walked) -> None:
            with suppress(RuntimeError):  # the loop has ended while a walk was still under way
                loop.call_soon_threadsafe(self._heard, name, news)

        watcher = Watcher(_inbox(rule), list(self.context.journal.known(rule.name)), report)
        task = self._group.create_task(intake.run())
        self._desks[rule.name] = _Desk(rule, intake, watcher, task)
        watcher.start()

    def _stop_rule(self, name: str) -> None:
        desk = self._desks.pop(name)
        desk.watcher.stop()
        desk.task.cancel()

    def _heard(self, name: str, news: list[Sighting] | Walked) -> None:
        """A watcher's report, in the event loop."""
        desk = self._desks.get(name)
        if desk is None:
            return
        if not isinstance(news, Walked):
            desk.intake.sighted(news)
            return
        if news.warning:
            _log.warning("inbox.not_watched", rule=name, path=desk.rule.inbox, reason=news.warning)
        if news.away != desk.away:
            if news.away is None:
                _log.info("inbox.back", rule=name, path=desk.rule.inbox)
            else:
                _log.error("inbox.away", rule=name, path=desk.rule.inbox, reason=news.away)
        changed = not desk.walked or news.away != desk.away
        desk.walked, desk.away = True, news.away
        if changed:
            self._report()
        if not self._ready and all(desk.walked for desk in self._desks.values()):
            self._ready = True
            self._manager.ready()
            self._manager.status(self._summary())
            _log.info("daemon.ready")

    def _look_again(self, job: Job) -> None:
        desk = self._desks.get(job.rule)
        if desk is not None:
            desk.watcher.forget(os.fspath(job.relative))
            desk.watcher.hint(os.fspath(job.source))

    async def _look(self) -> None:
        """Notices what commands did to the journal, and tells how things stand."""
        version = self.context.journal.data_version()
        bells = self.context.bells
        while True:
            await self._clock.sleep(_LOOK)
            if (now := self.context.journal.data_version()) != version:
                version = now
                for bell in (bells.submit, bells.collect, bells.deliver, bells.dispose):
                    bell.ring()
            self._manager.status(self._summary())

    async def _feed(self) -> None:
        """Feeds systemd's watchdog for as long as this loop turns."""
        if self._manager.watchdog is None:
            return
        while True:
            self._manager.alive()
            await self._clock.sleep(self._manager.watchdog / 3)

    async def _drain(self) -> None:
        """For `run --once`: stops when nothing is left to do, or nothing more can be done."""
        until = self._clock.monotonic() + _API_PATIENCE
        while True:
            await self._clock.sleep(0.1)
            if self.gate.blocked is None or self.gate.blocked.code is not Reason.API_DOWN:
                until = self._clock.monotonic() + _API_PATIENCE
            if self._drained() or self._stuck(dead=self._clock.monotonic() > until):
                self.stop()
                return

    def _drained(self) -> bool:
        if not all(desk.walked for desk in self._desks.values()) or self.settling:
            return False
        return self._left() == 0 and self.context.journal.originals_waiting() == 0

    def _left(self) -> int:
        """Number of jobs on their way, less those that wait for a rule that left the configuration."""
        journal = self.context.journal
        names = {rule.name for rule in self.context.config.rules}
        counts = journal.counts()
        orphans = sum(states.get(State.QUEUED, 0) for name, states in counts.items() if name not in names)
        return journal.unfinished() - orphans

    def _stuck(self, *, dead: bool) -> bool:
        """Whether all that is left waits for something that a person has to mend."""
        if not all(desk.walked for desk in self._desks.values()) or self.settling:
            return False
        totals = self._totals()
        moving = sum(totals.get(state, 0) for state in (State.SUBMITTING, State.PENDING, State.FETCHING))
        waiting = self.context.journal.waiting_in_vain(State.DELIVERING)
        shut = self.gate.blocked is not None and (dead or self.gate.blocked.code is not Reason.API_DOWN)
        if dead and moving:
            return True
        queued = self._left() - moving - totals.get(State.DELIVERING, 0)
        return moving == 0 and waiting == totals.get(State.DELIVERING, 0) and (queued == 0 or shut)

    def _verdict(self) -> int:
        """The exit code of `run --once`; says what is wrong."""
        bad = self.context.journal.changed_since(self._since, (State.REJECTED, State.FAILED, State.HELD))
        left = self._left()
        if left:
            blocked = self.gate.blocked
            reason = blocked.message if blocked else "see `picwish-watchd jobs` for what each of them waits for"
            _log.error("daemon.unfinished", jobs=left, reason=reason)
        away = any(desk.away for desk in self._desks.values())
        return 1 if bad or left or away else 0

    def _totals(self) -> Counter[State]:
        totals: Counter[State] = Counter()
        for states in self.context.journal.counts().values():
            totals.update(states)
        return totals

    def _summary(self) -> str:
        totals = self._totals()
        parts = [f"{totals[state]} {state}" for state in UNFINISHED if totals[state]]
        parts += [f"{totals[State.HELD]} held"] if totals[State.HELD] else []
        if self.gate.blocked is not None:
            parts.append(f"blocked: {self.gate.blocked.message}")
        parts += [f"inbox of {name} away" for name, desk in self._desks.items() if desk.away]
        return ", ".join(parts) or "idle"

    def _report(self) -> None:
        """What `status` cannot see from outside."""
        blocked = self.gate.blocked
        text = json.dumps(
            {
                "pid": os.getpid(),
                "version": __version__,
                "started_at": self._started,
                "blocked": None if blocked is None else {"code": blocked.code, "message": blocked.message},
                "rules": {
                    name: {"watching": desk.walked and desk.away is None, "reason": desk.away}
                    for name, desk in self._desks.items()
                },
            }
        )
        self.context.journal.publish_report(text)

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self.reload)

    def reload(self) -> None:
        """Reads the configuration and the key again; a faulty one changes nothing."""
        if self._reload is None or self._stop.is_set():
            return
        self._manager.reloading()
        try:
            config, key = self._reload()
        except WatchdError as error:
            _log.error("config.refused", reason=error.message)
        else:
            self._take_over(config, key)
        self._manager.ready()

    def _take_over(self, config: Config, key: str) -> None:
        context = self.context
        old = {rule.name: rule for rule in context.config.rules}
        new = {rule.name: rule for rule in config.rules}
        if config.journal != context.config.journal:
            _log.warning("config.needs_restart", key="journal")
        self._retired.append(context.client)
        context.client = _client(config, key)
        context.config = config
        self._pacer.set_qps(config.api.qps)
        for name in [name for name, rule in old.items() if new.get(name) != rule]:
            self._stop_rule(name)
        for name, rule in new.items():
            if old.get(name) != rule:
                context.journal.remember_rule(name, rule.to_json())
                self._start_rule(rule)
        self._report()
        self.gate.look()
        _log.info("config.reloaded", rules=len(new))


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What ended the daemon: the journal's word where there is one, else the first bug."""
    told = group.subgroup(WatchdError)
    error: BaseException = told or group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _all_ended(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks)


def _client(config: Config, key: str) -> PicwishClient:
    api = config.api
    return PicwishClient(base_url=api.base_url, key=key, timeout=api.timeout, allow_insecure=api.allow_insecure)


def _inbox(rule: Rule) -> Inbox:
    native = {Observer.NATIVE: True, Observer.POLLING: False, Observer.AUTO: None}[rule.observer]
    return Inbox(
        rule=rule.name,
        path=rule.inbox,
        names=NameFilter(rule.include, rule.exclude),
        recursive=rule.recursive,
        follow_symlinks=rule.follow_symlinks,
        native=native,
        rescan_interval=rule.rescan_interval,
    )
