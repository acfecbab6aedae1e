"""Run blocking calls in threads, one thread for each key, so that a dead mount blocks only the calls of its key."""

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

#: Seconds after which a call counts as hung.
STUCK_TIMEOUT = 5.0
# Seconds before the system is asked again for a thread that it refused.
_RETRY_DELAY = 1.0
# Seconds between two log lines about missing threads.
_LOG_INTERVAL = 60.0
_ADVICE = "raise TasksMax= of the service, ulimit -u, or the container's limit of pids"
# Threads of asyncio's own executor, which resolves host names and writes results.
_LOOP_THREADS = 4


class KeyedExecutor:
    """One worker thread for each key, made when first used. The calls of one key run one after the other.

    If the system grants no thread (ulimit -u, TasksMax=, a container's limit of pids), the calls wait for one.
    """

    def __init__(self) -> None:
        self._workers: dict[WorkerKey, _Worker] = {}
        self._running_count = 0
        # When the running call of each key was started (monotonic seconds).
        self._started_at: dict[WorkerKey, float] = {}
        # Calls end in their own threads.
        self._lock = threading.Lock()
        # Keys that wait for a thread.
        self._threadless_keys: set[WorkerKey] = set()
        # When a missing thread was last logged (monotonic seconds).
        self._logged_at = -math.inf
        self._closed = False

    async def run(self, key: WorkerKey, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``function`` in the thread of ``key``; return what it returns, raise what it raises.

        If the caller is cancelled, a call that has started still runs to its end.
        """
        return await self.submit(key, function, *args, **kwargs)

    def submit(
        self, key: WorkerKey, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> "asyncio.Future[T]":
        """Queue ``function`` for the thread of ``key`` at once, and return a future for its result.

        Use it instead of `run` if the caller does something else meanwhile. Raises RuntimeError after `close`.
        """
        if self._closed:
            raise RuntimeError("the executor is closed; no call can be started")
        future: Future[T] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            self._started_at[key] = time.monotonic()
            try:
                result = function(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - passed on to the future
                del self._started_at[key]
                future.set_exception(error)
            else:
                del self._started_at[key]
                future.set_result(result)

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
        """Start the thread of ``key``; if the system refuses, try again every second."""
        self._threadless_keys.discard(key)
        if self._closed or self._workers[key].ensure_started():
            return
        self._threadless_keys.add(key)
        if time.monotonic() - self._logged_at > _LOG_INTERVAL:
            self._logged_at = time.monotonic()
            _log.error(
                "threads.none", reason="the system grants no more threads; calls that need one wait", advice=_ADVICE
            )
        asyncio.get_running_loop().call_later(_RETRY_DELAY, self._start_worker, key)

    def _on_call_done(self, _future: object) -> None:
        with self._lock:
            self._running_count -= 1

    def is_stuck(self, key: WorkerKey) -> bool:
        """Return whether the current call of ``key`` has been running for more than `STUCK_TIMEOUT` seconds."""
        return self.running_seconds(key) > STUCK_TIMEOUT

    def running_seconds(self, key: WorkerKey) -> float:
        """Return for how many seconds the current call of ``key`` has been running; 0 if there is none."""
        started_at = self._started_at.get(key)
        return 0.0 if started_at is None else time.monotonic() - started_at

    @property
    def has_unfinished_calls(self) -> bool:
        """Return whether a call is queued or running."""
        return self._running_count > 0

    def close(self) -> None:
        """Let all threads end, without waiting for one that hangs. Calls that have not started are cancelled."""
        self._closed = True
        for worker in self._workers.values():
            worker.close()


def create_loop_executor() -> ThreadPoolExecutor:
    """Return asyncio's default executor with all its threads started.

    They are started now because the system may grant none later, when a paid result has to be written. Raises
    `WatchdError` if it grants too few now.
    """
    pool = ThreadPoolExecutor(_LOOP_THREADS, thread_name_prefix="asyncio")
    all_started = threading.Barrier(_LOOP_THREADS)
    try:
        for _ in range(_LOOP_THREADS):
            pool.submit(all_started.wait)
    except RuntimeError as error:
        all_started.abort()
        raise WatchdError(f"the system grants picwish-watchd too few threads ({error})", hint=_ADVICE) from error
    return pool


# A queued call: the function that runs it, and the one that cancels it.
_Call = tuple[Callable[[], object], Callable[[], object]]


class _Worker:
    """The thread of one key and the queue of its calls."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self.calls: SimpleQueue[_Call | None] = SimpleQueue()

    def ensure_started(self) -> bool:
        """Start the thread unless it runs; return whether it runs, because the system may refuse it."""
        if self._thread is None:
            thread = threading.Thread(target=self._run_calls, name=self._name, daemon=True)
            with suppress(RuntimeError):
                thread.start()
                self._thread = thread
        return self._thread is not None

    def close(self) -> None:
        """Cancel the calls that have not started, and let the thread end after the current one."""
        with suppress(Empty):
            while (call := self.calls.get_nowait()) is not None:
                call[1]()
        self.calls.put(None)

    def _run_calls(self) -> None:
        while (call := self.calls.get()) is not None:
            call[0]()
            # Drop the reference: the result may be 30 MB.
            del call
