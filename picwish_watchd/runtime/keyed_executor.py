"""Blocking work in threads, a lane each for what may hang together: a dead mount blocks its own lane only."""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import ParamSpec, TypeVar

import structlog

from picwish_watchd.errors import WatchdError
from picwish_watchd.runtime.worker_key import WorkerKey

_log = structlog.get_logger()

P = ParamSpec("P")
T = TypeVar("T")

#: seconds after which a call counts as hanging
STUCK_TIMEOUT = 5.0
# seconds until a thread is tried again that the system had no room for
_RETRY_DELAY = 1.0
# seconds
_LOG_INTERVAL = 60.0
_ADVICE = "raise TasksMax= of the service, ulimit -u, or the container's limit of pids"
# threads that look names up and write results
_LOOP_THREADS = 4


class KeyedExecutor:
    """Threads by name, made when first used. A lane does one thing after the other.

    Where the system grants no thread (ulimit -u, TasksMax=, a container's limit of pids) what needs it waits for it.
    """

    def __init__(self) -> None:
        self._workers: dict[WorkerKey, _Worker] = {}
        self._running_count = 0
        # lane -> when its call that is under way was begun
        self._started_at: dict[WorkerKey, float] = {}
        # calls return in their own threads
        self._lock = threading.Lock()
        # lanes that wait for a thread
        self._threadless_keys: set[WorkerKey] = set()
        # when that was last told (monotonic seconds)
        self._logged_at = -math.inf
        self._closed = False

    async def run(self, key: WorkerKey, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What ``function`` answers or raises. Cancelled, a call that has begun still runs to its end."""
        return await self.submit(key, function, *args, **kwargs)

    def submit(
        self, key: WorkerKey, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> "asyncio.Future[T]":
        """The same, under way already: for what is done meanwhile. Raises RuntimeError after `close`."""
        if self._closed:
            raise RuntimeError("nothing is begun after the end")
        future: Future[T] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            self._started_at[key] = time.monotonic()
            try:
                found = function(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - none is kept here: whoever waits for it gets it
                del self._started_at[key]
                future.set_exception(error)
            else:
                del self._started_at[key]
                future.set_result(found)

        with self._lock:
            self._running_count += 1
        future.add_done_callback(self._on_call_done)
        if key not in self._workers:
            self._workers[key] = _Worker(key.name)
        self._workers[key].calls.put((call, future.cancel))
        if key not in self._threadless_keys:
            self._start_worker(key)
        return asyncio.wrap_future(future)

    def _start_worker(self, key: WorkerKey) -> None:
        """Begins its thread, again and again until there is room for it."""
        self._threadless_keys.discard(key)
        if self._closed or self._workers[key].ensure_started():
            return
        self._threadless_keys.add(key)
        if time.monotonic() - self._logged_at > _LOG_INTERVAL:
            self._logged_at = time.monotonic()
            _log.error("threads.none", reason="the system grants no more threads; what needs one waits", advice=_ADVICE)
        asyncio.get_running_loop().call_later(_RETRY_DELAY, self._start_worker, key)

    def _on_call_done(self, _future: object) -> None:
        with self._lock:
            self._running_count -= 1

    def is_stuck(self, key: WorkerKey) -> bool:
        """Whether its call has been under way for longer than `PATIENCE`."""
        return self.running_seconds(key) > STUCK_TIMEOUT

    def running_seconds(self, key: WorkerKey) -> float:
        """How long its call has been under way; 0 without one."""
        began = self._started_at.get(key)
        return 0.0 if began is None else time.monotonic() - began

    @property
    def has_running(self) -> bool:
        """Whether a call has not come back yet."""
        return self._running_count > 0

    def close(self) -> None:
        """Lets go of all threads without waiting for one that hangs; what has not begun is cancelled."""
        self._closed = True
        for worker in self._workers.values():
            worker.close()


def create_loop_executor() -> ThreadPoolExecutor:
    """asyncio's own threads, begun at once: when a result has been paid for, the system may grant none.

    Raises `WatchdError` where it grants none now.
    """
    pool = ThreadPoolExecutor(_LOOP_THREADS, thread_name_prefix="asyncio")
    together = threading.Barrier(_LOOP_THREADS)
    try:
        for _ in range(_LOOP_THREADS):
            pool.submit(together.wait)
    except RuntimeError as error:
        together.abort()
        raise WatchdError(f"the system grants picwish-watchd too few threads ({error})", hint=_ADVICE) from error
    return pool


# what to do, and how to give it up
_Call = tuple[Callable[[], object], Callable[[], object]]


class _Worker:
    """One thread, and what it is to do."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self.calls: SimpleQueue[_Call | None] = SimpleQueue()

    def ensure_started(self) -> bool:
        """Whether it is there by now: the system may have no room for it."""
        if self._thread is None:
            thread = threading.Thread(target=self._run_calls, name=self._name, daemon=True)
            with suppress(RuntimeError):
                thread.start()
                self._thread = thread
        return self._thread is not None

    def close(self) -> None:
        with suppress(Empty):
            while (call := self.calls.get_nowait()) is not None:
                call[1]()
        self.calls.put(None)

    def _run_calls(self) -> None:
        while (call := self.calls.get()) is not None:
            call[0]()
            # what it answered may be 30 MB
            del call
