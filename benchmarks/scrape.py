"""Measure how long a scrape takes with many finished jobs, and how often it delays the daemon's event loop."""

import argparse
import json
import socket
import statistics
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from benchmarks.journal_history import fill_journal
from benchmarks.processes import BenchmarkError, SimulatorProcess, Workspace, temporary_workspace
from benchmarks.results import Figure, run_benchmark
from picwish_watchd.clock import Clock
from picwish_watchd.journal.writer import Journal


def measure(args: argparse.Namespace) -> Iterator[Figure]:
    """Scrape a daemon with ``--finished`` jobs ``--scrapes`` times, with and without changes in between."""
    with temporary_workspace() as here, SimulatorProcess(qps=None) as simulator:
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        budget = {"per_day": 10**7, "per_month": 10**8}
        here.configure(simulator.url, {"qps": 2}, {}, http={"listen": address}, budget=budget)
        fill_journal(here, args.finished, 0, lying=False)
        with here.running_daemon("benchmarks.loop_probe") as daemon:
            yield from _measure_scrapes(here, daemon, address, args.scrapes)
        late = json.loads(here.read_output())["long"]
        yield Figure("turns of the event loop over 50 ms late, including the start", len(late), "")


def _measure_scrapes(here: Workspace, daemon: "subprocess.Popen[bytes]", address: str, number: int) -> Iterator[Figure]:
    journal = Journal.open_existing(here.folder / "state" / "journal.db", Clock())
    first, last = journal.jobs(oldest_first=True, limit=1)[0], journal.jobs(limit=1)[0]
    _timed_get(daemon, address, "/metrics")
    still = [_timed_get(daemon, address, "/metrics") for _ in range(number)]
    changes: dict[str, list[float]] = {"something new has happened": [], "an old job has moved": []}
    for job, times in zip((last, first), changes.values(), strict=True):
        for _ in range(number):
            journal.update(job, "a line of history", note=None)
            times.append(_timed_get(daemon, address, "/metrics"))
    health = [_timed_get(daemon, address, "/healthz") for _ in range(number)]
    journal.close()
    for name, times in changes.items():
        yield from _summarize(f"/metrics, {name}", times)
    yield from _summarize("/metrics, nothing has happened", still)
    yield from _summarize("/healthz", health)


def _summarize(name: str, times: list[float]) -> Iterator[Figure]:
    goal = None if "old" in name else 50.0
    yield Figure(f"{name}, median", statistics.median(times), "ms", goal)
    yield Figure(f"{name}, p95", statistics.quantiles(times, n=20, method="inclusive")[-1], "ms")


def _timed_get(daemon: "subprocess.Popen[bytes]", address: str, path: str) -> float:
    began = time.perf_counter()
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as answer:
            answer.read()
    except urllib.error.URLError as error:
        raise BenchmarkError(f"pid {daemon.pid} answered with an error: {error}") from error
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    run_benchmark(__doc__, measure, finished=100_000, scrapes=40)
