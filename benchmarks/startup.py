"""Measure how long a user waits for a command, and a service for its daemon, with 100,000 finished jobs."""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.journal import measure_time_to_ready
from benchmarks.journal_history import fill_journal
from benchmarks.processes import ENVIRON, BenchmarkError, SimulatorProcess, temporary_workspace
from benchmarks.results import Figure, run_benchmark

_MS = 1000.0
# Seconds from a daemon's readiness until it is idle.
_SETTLE_TIME = 3.0


def measure(args: argparse.Namespace) -> Iterator[Figure]:
    """Measure each command as a process, from its start to its end, including the interpreter's own start."""
    with temporary_workspace() as here, SimulatorProcess(qps=None) as simulator:
        here.configure(simulator.url, {"qps": 2}, {"settle": 0.2})
        fill_journal(here, args.finished, 0, lying=False)
        run, times = ("-m", "picwish_watchd"), args.times
        options = ("-c", str(here.config_file))
        yield from _measure_command("an empty interpreter", times, "-c", "pass")
        yield from _measure_command("--help", times, *run, "--help", goal=100.0)
        yield from _measure_command("status --json, no daemon running", times, *run, "status", *options, "--json")
        with here.running_daemon():
            time.sleep(_SETTLE_TIME)
            yield from _measure_command("status, beside a daemon at rest", times, *run, "status", *options, goal=100.0)
            yield from _measure_command(
                "status --json, beside a daemon at rest", times, *run, "status", *options, "--json", goal=100.0
            )
        yield from _measure_command(
            "  of it interpreter and imports", times, "-c", "import picwish_watchd.cli.commands.status"
        )
        ready = [measure_time_to_ready(here, kill=False) for _ in range(max(1, times // 4))]
        yield Figure("the daemon, to READY=1", statistics.median(ready) * _MS, "ms")
        yield from _measure_command(
            "  of it interpreter and imports", times, "-c", "import picwish_watchd.cli.commands.run"
        )


def _measure_command(name: str, times: int, *arguments: str, goal: float | None = None) -> Iterator[Figure]:
    # The first run may write bytecode.
    _time_process(arguments)
    seconds, cpu = zip(*(_time_process(arguments) for _ in range(times)), strict=True)
    yield Figure(name, statistics.median(seconds) * _MS, "ms", goal)
    yield Figure(f"{name}: CPU", statistics.median(cpu) * _MS, "ms")


def _time_process(arguments: tuple[str, ...]) -> tuple[float, float]:
    """Return the seconds of wall-clock and CPU time of one process."""
    began, before = time.monotonic(), _cpu_of_children()
    process = subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, env=ENVIRON, check=False)
    spent = time.monotonic() - began, _cpu_of_children() - before
    if process.returncode != 0:
        raise BenchmarkError(f"{' '.join(arguments)} ended with {process.returncode}")
    return spent


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    run_benchmark(__doc__, measure, finished=100_000, times=11)
