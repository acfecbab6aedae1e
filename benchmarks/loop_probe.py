"""Run the daemon with a probe in its event loop.

``python -m benchmarks.loop_probe run -c CONFIG`` serves until SIGTERM and logs to standard error. At its end it prints
one line of JSON: the longest gap between ticks and all gaps over 50 ms, in seconds; the most CPU time that the loop's
own thread used in one turn; the number of synced commits.

A turn is what the loop does before it polls for events again. Up to three turns may pass between two ticks. A gap is
the time for which the loop could not turn: because of its own work, a disk that syncs, another thread that holds the
interpreter, or the machine.
"""

import argparse
import asyncio
import gc
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from picwish_watchd.cli.loading import resolve_config_and_key
from picwish_watchd.daemon.daemon import Daemon
from picwish_watchd.journal.locks import WriteLock
from picwish_watchd.log import setup as log

# Seconds.
_TICK = 0.005
_LONG_TURN = 0.05
# Seconds in which the first connection loads its libraries, once and before any image exists.
_WARM_UP = 5.0


@dataclass(slots=True)
class LoopStats:
    """The figures to print at the end. They must not grow while the daemon's memory is measured."""

    #: The longest gap in seconds.
    longest: float = 0.0
    #: The most CPU seconds of the loop's thread in one turn after the warm-up.
    work: float = 0.0
    long: list[float] = field(default_factory=list)
    commits: int = 0


class _TimedEventLoop(asyncio.SelectorEventLoop):
    """An event loop that reads the clock before and after each turn."""

    def __init__(self, noticed: LoopStats) -> None:
        super().__init__()
        self._noticed = noticed
        self._begin = time.monotonic() + _WARM_UP

    def _run_once(self) -> None:
        before = time.thread_time()
        # This method is not public, and no other place sees single turns.
        super()._run_once()  # type: ignore[misc]
        if time.monotonic() > self._begin:
            self._noticed.work = max(self._noticed.work, time.thread_time() - before)


async def _serve(daemon: Daemon, noticed: LoopStats) -> None:
    beating = asyncio.create_task(_tick(noticed))
    await daemon.run()
    beating.cancel()


async def _tick(noticed: LoopStats) -> None:
    last = time.monotonic()
    while True:
        await asyncio.sleep(_TICK)
        now = time.monotonic()
        gap = now - last - _TICK
        noticed.longest = max(noticed.longest, gap)
        if gap > _LONG_TURN:
            noticed.long.append(gap)
        last = now


def _count_commits(noticed: LoopStats) -> None:
    """Count the journal's commits from now on."""
    testify = WriteLock.record_durable_event

    def counted(self: WriteLock, event: int) -> None:
        noticed.commits += 1
        testify(self, event)

    WriteLock.record_durable_event = counted  # type: ignore[method-assign]


def main() -> None:
    """Run the daemon with the configuration named on the command line."""
    config, key = resolve_config_and_key(argparse.Namespace(config=Path(sys.argv[3])))
    log.configure_logging(config.log.level, config.log.format, sys.stderr)
    # The command does the same.
    gc.freeze()
    noticed = LoopStats()
    _count_commits(noticed)
    with asyncio.Runner(loop_factory=lambda: _TimedEventLoop(noticed)) as runner:
        runner.run(_serve(Daemon(config, key), noticed))
    print(json.dumps(asdict(noticed)), flush=True)


if __name__ == "__main__":
    main()
