"""Clocks, passed to whatever needs the time, so that tests need not wait for it."""

import time


class Clock:
    """The machine's clocks; tests pass a fake one.

    ``now`` is for what people read and what the API compares (Unix seconds, may jump). ``monotonic`` is for every
    duration and deadline inside the process (seconds, never jumps). ``since_boot`` is for what goes on elsewhere while
    this machine sleeps.
    """

    def now(self) -> float:
        """Return Unix seconds (since 1970-01-01T00:00:00Z)."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds since some moment in the past; only differences mean anything."""
        return time.monotonic()

    def since_boot(self) -> float:
        """Return seconds since boot, including those while suspended (CLOCK_BOOTTIME, clock_gettime(2))."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    async def sleep(self, seconds: float) -> None:
        """Sleep; return at once for zero and less."""
        # Imported here: asyncio takes a third of the start time of a command that never sleeps.
        import asyncio

        await asyncio.sleep(max(0.0, seconds))


def day_start(now: float) -> float:
    """Return the local midnight before ``now``; both in Unix seconds. Right also when the clocks change that day."""
    local = time.localtime(now)
    return time.mktime((local.tm_year, local.tm_mon, local.tm_mday, 0, 0, 0, 0, 0, -1))


def month_start(now: float) -> float:
    """Return the local midnight at which the month of ``now`` began; both in Unix seconds."""
    local = time.localtime(now)
    return time.mktime((local.tm_year, local.tm_mon, 1, 0, 0, 0, 0, 0, -1))
