"""Build the parts of the daemon from a configuration, in the order in which they need each other."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial

from picwish_watchd.clock import Clock
from picwish_watchd.config.model import Config
from picwish_watchd.counters import Counters
from picwish_watchd.daemon.changes import Changes
from picwish_watchd.daemon.watchdog import list_overdue_loops
from picwish_watchd.fs.mounts import MountWatcher
from picwish_watchd.job import Job
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
from picwish_watchd.pipeline.prepare import Prepare
from picwish_watchd.pipeline.submit import Submit
from picwish_watchd.reporting.status_report import ReportPublisher
from picwish_watchd.runtime.memory_budget import MemoryBudget
from picwish_watchd.scheduling.download_slots import DownloadSlots
from picwish_watchd.scheduling.rate_limiter import RateLimiter
from picwish_watchd.scheduling.request_log import RequestLog
from picwish_watchd.scheduling.task_tracker import TaskTracker

#: Bytes of images that may be in memory at once.
_UPLOAD_MEMORY = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Steps:
    """The loops that move jobs through the pipeline, and the tasks that submit and collect share."""

    submit: Submit
    collect: Collect
    deliver: Deliver
    dispose: Dispose
    tracker: TaskTracker


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of a running daemon. They live until the exit stack that built them is closed."""

    context: StepContext
    gate: Gate
    inboxes: Inboxes
    rate_limiter: RateLimiter
    steps: Steps
    mount_watcher: MountWatcher
    report_publisher: ReportPublisher
    exporter: Exporter
    dispatcher: NotificationDispatcher
    #: Clients of earlier configurations. Their last requests may still be running.
    retired_clients: list[PicwishClient] = field(default_factory=list)

    async def close_clients(self) -> None:
        """Close the connections to PicWish."""
        for client in (*self.retired_clients, self.context.client):
            await client.aclose()


async def build_services(
    config: Config, key: str, clock: Clock, *, stack: AsyncExitStack, changes: Changes
) -> Services:
    """Lock the journal, open it and build all parts on it. ``stack`` closes them in reverse order.

    ``changes`` is notified whenever something changes that is visible from outside.
    Raises `JournalError` and `JournalBusyError`, and `ConfigError` for a token file of `http` that cannot be used.
    """
    journal = _open_journal(config, clock, stack)
    mount_watcher = MountWatcher()
    stack.callback(mount_watcher.close)
    request_log = RequestLog(journal.path, clock)
    stack.callback(request_log.close)
    rate_limiter = RateLimiter(config.api.qps, clock, request_log)
    context = _build_context(config, key, clock, journal)
    stack.callback(context.close)
    gate = Gate(context, rate_limiter=rate_limiter, on_change=changes.notify)
    inboxes = Inboxes(context, on_change=changes.notify)
    overdue_loops = partial(list_overdue_loops, context.heartbeat, rate_limiter)
    exporter = Exporter(context, gate, inboxes, overdue_loops=overdue_loops)
    services = Services(
        context=context,
        gate=gate,
        inboxes=inboxes,
        rate_limiter=rate_limiter,
        steps=build_steps(context, gate, rate_limiter, rescan_source=inboxes.rescan_source),
        mount_watcher=mount_watcher,
        report_publisher=ReportPublisher(
            journal, clock, lambda: context.config, gate=gate, inboxes=inboxes, rate_limiter=rate_limiter
        ),
        exporter=exporter,
        dispatcher=NotificationDispatcher(context, gate, inboxes),
    )
    stack.push_async_callback(services.close_clients)
    stack.push_async_callback(exporter.aclose)
    exporter.open(config.http)
    return services


def _open_journal(config: Config, clock: Clock, stack: AsyncExitStack) -> Journal:
    check_regular_file(config.journal)
    check_local_filesystem(config.journal)
    ensure_journal_folder(config.journal)
    lock = DaemonLock(config.journal)
    lock.acquire()
    stack.callback(lock.release)
    journal = Journal.open_for_writing(config.journal, clock)
    stack.callback(journal.close)
    return journal


def _build_context(config: Config, key: str, clock: Clock, journal: Journal) -> StepContext:
    spool = Spool(spool_folder(journal.path))
    spool.ensure_folder()
    counters = Counters()
    client = build_client(config, key, counters)
    return StepContext(config=config, journal=journal, spool=spool, clock=clock, client=client, counters=counters)


def build_steps(
    context: StepContext,
    gate: Gate,
    rate_limiter: RateLimiter,
    *,
    rescan_source: Callable[[Job], None],
    upload_memory: int = _UPLOAD_MEMORY,
) -> Steps:
    """Build the steps and connect them to each other.

    ``rescan_source`` makes the file at a job's source a candidate again. ``upload_memory`` are the bytes of images that
    may be in memory at once.
    """
    download_slots = DownloadSlots(context.clock)
    tracker = TaskTracker(
        context.journal,
        context.clock,
        lambda: context.config,
        download_slots=download_slots,
        wakeup=context.wakeups.collect,
    )
    collect = Collect(context, gate=gate, rate_limiter=rate_limiter, tracker=tracker, download_slots=download_slots)
    submit = Submit(
        context,
        gate=gate,
        rate_limiter=rate_limiter,
        memory_budget=MemoryBudget(upload_memory),
        prepare=Prepare(context, rescan_source=rescan_source),
        tracker=tracker,
        handle_result=collect.handle_task_success,
    )
    dispose = Dispose(context, rescan_source=rescan_source)
    return Steps(submit=submit, collect=collect, deliver=Deliver(context), dispose=dispose, tracker=tracker)


def connection_settings(config: Config) -> tuple[object, ...]:
    """Return the settings that a client is built with. A client whose settings changed is replaced."""
    return config.api.base_url, config.api.timeout, config.api.allow_insecure


def build_client(config: Config, key: str, counters: Counters) -> PicwishClient:
    """Build the API client of a configuration; ``counters`` counts its requests."""
    api = config.api
    return PicwishClient(
        base_url=api.base_url,
        key=key,
        timeout=api.timeout,
        allow_insecure=api.allow_insecure,
        on_request_done=counters.count_request,
    )
