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

_log = structlog.get_logger()

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = 5.0  #: seconds after which a call counts as hanging
_AGAIN = 1.0  # seconds until a thread is tried again that the system had no room for
_TELL_AGAIN = 60.0  # seconds
_ADVICE = "raise TasksMax= of the service, ulimit -u, or the container's limit of pids"
_OF_THE_LOOP = 4  # threads that look names up and write results


class Lanes:
    """Threads by name, made when first used. A lane does one thing after the other.

    Where the system grants no thread (ulimit -u, TasksMax=, a container's limit of pids) what needs it waits for it.
    """

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}
        self._running = 0
        self._began: dict[str, float] = {}  # lane -> when its call that is under way was begun
        self._lock = threading.Lock()  # calls return in their own threads
        self._short: set[str] = set()  # lanes that wait for a thread
        self._told = -math.inf  # when that was last told (monotonic seconds)
        self._closed = False

    async def run(self, lane: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What ``function`` answers or raises. Cancelled, a call that has begun still runs to its end."""
        return await self.begin(lane, function, *args, **kwargs)

    def begin(self, lane: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "asyncio.Future[T]":
        """The same, under way already: for what is done meanwhile. Raises RuntimeError after `close`."""
        if self._closed:
            raise RuntimeError("nothing is begun after the end")
        future: Future[T] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            self._began[lane] = time.monotonic()
            try:
                found = function(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - none is kept here: whoever waits for it gets it
                del self._began[lane]
                future.set_exception(error)
            else:
                del self._began[lane]
                future.set_result(found)

        with self._lock:
            self._running += 1
        future.add_done_callback(self._returned)
        if lane not in self._lanes:
            self._lanes[lane] = _Lane(lane)
        self._lanes[lane].calls.put((call, future.cancel))
        if lane not in self._short:
            self._go(lane)
        return asyncio.wrap_future(future)

    def _go(self, lane: str) -> None:
        """Begins its thread, again and again until there is room for it."""
        self._short.discard(lane)
        if self._closed or self._lanes[lane].begun():
            return
        self._short.add(lane)
        if time.monotonic() - self._told > _TELL_AGAIN:
            self._told = time.monotonic()
            _log.error("threads.none", reason="the system grants no more threads; what needs one waits", advice=_ADVICE)
        asyncio.get_running_loop().call_later(_AGAIN, self._go, lane)

    def _returned(self, _future: object) -> None:
        with self._lock:
            self._running -= 1

    def hangs(self, lane: str) -> bool:
        """Whether its call has been under way for longer than `PATIENCE`."""
        return self.seconds(lane) > PATIENCE

    def seconds(self, lane: str) -> float:
        """How long its call has been under way; 0 without one."""
        began = self._began.get(lane)
        return 0.0 if began is None else time.monotonic() - began

    @property
    def busy(self) -> bool:
        """Whether a call has not come back yet."""
        return self._running > 0

    def close(self) -> None:
        """Lets go of all threads without waiting for one that hangs; what has not begun is cancelled."""
        self._closed = True
        for lane in self._lanes.values():
            lane.close()


def threads_of_the_loop() -> ThreadPoolExecutor:
    """asyncio's own threads, begun at once: when a result has been paid for, the system may grant none.

    Raises `WatchdError` where it grants none now.
    """
    pool = ThreadPoolExecutor(_OF_THE_LOOP, thread_name_prefix="asyncio")
    together = threading.Barrier(_OF_THE_LOOP)
    try:
        for _ in range(_OF_THE_LOOP):
            pool.submit(together.wait)
    except RuntimeError as error:
        together.abort()
        raise WatchdError(f"the system grants picwish-watchd too few threads ({error})", hint=_ADVICE) from error
    return pool


_Call = tuple[Callable[[], object], Callable[[], object]]  # what to do, and how to give it up


class _Lane:
    """One thread, and what it is to do."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self.calls: SimpleQueue[_Call | None] = SimpleQueue()

    def begun(self) -> bool:
        """Whether it is there by now: the system may have no room for it."""
        if self._thread is None:
            thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            with suppress(RuntimeError):
                thread.start()
                self._thread = thread
        return self._thread is not None

    def close(self) -> None:
        with suppress(Empty):
            while (call := self.calls.get_nowait()) is not None:
                call[1]()
        self.calls.put(None)

    def _work(self) -> None:
        while (call := self.calls.get()) is not None:
            call[0]()
            del call  # what it answered may be 30 MB
