"""Time, given from outside so that tests need not wait for it."""

import time


class Clock:
    """The machine's clocks. Tests hand the steps another one.

    ``now`` is for what people read and what the API compares (Unix seconds, may jump); ``monotonic`` is for every
    duration and deadline inside the process (seconds, never jumps); ``since_boot`` is for what goes on elsewhere
    while this machine sleeps.
    """

    def now(self) -> float:
        """Seconds since 1970-01-01T00:00:00Z."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some moment in the past; only differences mean anything."""
        return time.monotonic()

    def since_boot(self) -> float:
        """As ``monotonic``, and goes on while the machine is suspended (CLOCK_BOOTTIME, clock_gettime(2))."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    async def sleep(self, seconds: float) -> None:
        """Sleeps; at once back for zero and less."""
        # here, for it is a third of what a command that never sleeps needs to start
        import asyncio

        await asyncio.sleep(max(0.0, seconds))


def day_start(now: float) -> float:
    """The local midnight before ``now``; both Unix seconds. Right on the days on which the clocks change, too."""
    local = time.localtime(now)
    return time.mktime((local.tm_year, local.tm_mon, local.tm_mday, 0, 0, 0, 0, 0, -1))


def month_start(now: float) -> float:
    """The local midnight with which the month of ``now`` began; both Unix seconds."""
    local = time.localtime(now)
    return time.mktime((local.tm_year, local.tm_mon, 1, 0, 0, 0, 0, 0, -1))
