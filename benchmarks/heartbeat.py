"""The daemon with a heartbeat in its event loop: ``python -m benchmarks.heartbeat run -c CONFIG`` serves until SIGTERM.

Its log goes to standard error as ever; at its end it prints one line of JSON with the gaps between beats, in seconds:
the longest, and all over 50 ms; and the number of its commits. A gap is how long the loop was kept from turning, by
work of its own thread, by another thread that holds the interpreter, or by the machine.
"""

import argparse
import asyncio
import gc
import json
import sys
import time
from pathlib import Path

from picwish_watchd import log
from picwish_watchd.cli.source import configuration_and_key
from picwish_watchd.daemon import Daemon
from picwish_watchd.journal.locks import WriteLock

_BEAT = 0.005  # seconds
_LONG = 0.05


async def _serve(daemon: Daemon) -> list[float]:
    gaps: list[float] = []
    beating = asyncio.create_task(_beat(gaps))
    await daemon.run()
    beating.cancel()
    return gaps


async def _beat(gaps: list[float]) -> None:
    last = time.monotonic()
    while True:
        await asyncio.sleep(_BEAT)
        now = time.monotonic()
        gaps.append(now - last - _BEAT)
        last = now


def _count_commits() -> list[int]:
    """Gets an entry for each commit from now on: the journal testifies to every one of them."""
    commits: list[int] = []
    testify = WriteLock.testify

    def counted(lock: WriteLock, last: int) -> None:
        commits.append(last)
        testify(lock, last)

    WriteLock.testify = counted  # type: ignore[method-assign]
    return commits


def main() -> None:
    """Runs the daemon of the configuration that is named on the command line."""
    config, key = configuration_and_key(argparse.Namespace(config=Path(sys.argv[3])))
    log.setup(config.log.level, config.log.format, sys.stderr)
    gc.freeze()  # as the command does
    commits = _count_commits()
    gaps = asyncio.run(_serve(Daemon(config, key)))
    told = {"longest": max(gaps), "long": [gap for gap in gaps if gap > _LONG], "commits": len(commits)}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
