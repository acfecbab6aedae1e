"""Blocking work in threads, a lane each for what may hang together: a dead mount blocks its own lane only."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = 5.0  #: seconds after which a call counts as hanging


class Lanes:
    """Threads by name, made when first used. A lane does one thing after the other."""

    def __init__(self) -> None:
        self._lanes: dict[str, ThreadPoolExecutor] = {}
        self._running = 0
        self._began: dict[str, float] = {}  # lane -> when its call that is under way was begun
        self._lock = threading.Lock()  # calls return in their own threads

    async def run(self, lane: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What ``function`` answers or raises. Cancelled, a call that has begun still runs to its end."""
        return await self.begin(lane, function, *args, **kwargs)

    def begin(self, lane: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "asyncio.Future[T]":
        """The same, under way already: for what is done meanwhile."""
        pool = self._lanes.get(lane)
        if pool is None:
            pool = self._lanes[lane] = ThreadPoolExecutor(1, thread_name_prefix=lane)
        with self._lock:
            self._running += 1

        def call() -> T:
            self._began[lane] = time.monotonic()
            try:
                return function(*args, **kwargs)
            finally:
                del self._began[lane]

        future = pool.submit(call)
        future.add_done_callback(self._returned)
        return asyncio.wrap_future(future)

    def _returned(self, _future: object) -> None:
        with self._lock:
            self._running -= 1

    def hangs(self, lane: str) -> bool:
        """Whether its call has been under way for longer than `PATIENCE`."""
        began = self._began.get(lane)
        return began is not None and time.monotonic() - began > PATIENCE

    @property
    def busy(self) -> bool:
        """Whether a call has not come back yet."""
        return self._running > 0

    def close(self) -> None:
        """Lets go of all threads without waiting for one that hangs."""
        for pool in self._lanes.values():
            pool.shutdown(wait=False, cancel_futures=True)
