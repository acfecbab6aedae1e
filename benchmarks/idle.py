"""Measure an idle daemon: CPU and memory with many finished jobs whose originals are still in the inbox."""

import argparse
import subprocess
import time
from collections.abc import Iterator

from benchmarks.journal_history import fill_journal
from benchmarks.processes import SimulatorProcess, process_cpu_seconds, resident_memory, temporary_workspace, wait_until
from benchmarks.results import Figure, run_benchmark

# Seconds after READY=1 that are not counted.
_WARM_UP = 5.0


def measure(args: argparse.Namespace) -> Iterator[Figure]:
    """Leave a daemon idle for ``--seconds`` with ``--files`` finished files, with kernel events and with polling."""
    with temporary_workspace() as here, SimulatorProcess(qps=None) as simulator:
        fill_journal(here, args.files, 0, lying=True)
        ways = {"events, rescan_interval 60 s": ("native", 60, 0.5), "polling, every 10 s": ("polling", 10, 5.0)}
        for name, (observer, interval, goal) in ways.items():
            here.configure(simulator.url, {"qps": 2}, {"observer": observer, "rescan_interval": interval})
            with here.running_daemon() as daemon:
                time.sleep(_WARM_UP)
                share = _cpu_share(daemon, args.seconds)
                yield Figure(f"{name}: share of one core", share * 100, "%", goal)
                yield Figure(f"{name}: memory", resident_memory(daemon.pid), "MB", 150.0)


def _cpu_share(daemon: "subprocess.Popen[bytes]", seconds: float) -> float:
    before, until = process_cpu_seconds(daemon.pid), time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > until, daemon, every=0.2)
    return (process_cpu_seconds(daemon.pid) - before) / seconds


if __name__ == "__main__":
    run_benchmark(__doc__, measure, files=100_000, seconds=60.0)
