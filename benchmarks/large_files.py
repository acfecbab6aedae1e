"""Measure large images: 30 of 25 MB up and down, by URL and as base64, beside curl with the same transfers."""

import argparse
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.noise_images import make_unique, noise_jpeg
from benchmarks.processes import (
    BenchmarkError,
    SimulatorProcess,
    Workspace,
    peak_memory,
    process_cpu_seconds,
    temporary_workspace,
    wait_until,
)
from benchmarks.results import Figure, run_benchmark

# The daemon uploads as many images at a time as it ever does.
_QPS = 200
_SCRIPT = Path(__file__).parent / "reference" / "transfer.sh"
# Seconds.
_TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class _TransferUsage:
    #: From the drop of the images to the last result.
    seconds: float
    #: CPU time of the daemon in seconds.
    cpu: float
    #: Peak resident memory in MB.
    peak: float
    #: Resident memory before the drop in MB.
    idle: float


def measure(args: argparse.Namespace) -> Iterator[Figure]:
    """Measure the daemon, which checks, hashes, journals and syncs what it transfers, and curl, which only moves it."""
    jpeg = noise_jpeg(3200, 3200, quality=95)
    yield Figure("one image", len(jpeg) / 1e6, "MB")
    for return_type, way in ((1, "by URL"), (2, "as base64")):
        usage = _measure_daemon(jpeg, args.pictures, return_type)
        yield Figure(f"{way}: peak memory of the daemon", usage.peak, "MB", 150.0)
        yield Figure(f"{way}: memory when idle", usage.idle, "MB")
        yield Figure(f"{way}: time", usage.seconds, "s")
        yield Figure(f"{way}: CPU of the daemon per image", usage.cpu / args.pictures * 1000, "ms")
        for at_once in (1, 4) if args.curl else ():
            seconds = _measure_curl(jpeg, args.pictures, return_type, at_once)
            yield Figure(f"{way}: curl, {at_once} at once", seconds, "s")
            yield Figure(f"{way}: the daemon's time / curl's, {at_once} at once", usage.seconds / seconds, "")


def _start_simulator() -> SimulatorProcess:
    return SimulatorProcess(qps=None, processing=(0.05, 0.3))


def _drop_images(here: Workspace, jpeg: bytes, pictures: int) -> None:
    for number in range(pictures):
        (here.inbox / f"{number}.jpg").write_bytes(make_unique(jpeg, number))


def _measure_daemon(jpeg: bytes, pictures: int, return_type: int) -> _TransferUsage:
    with temporary_workspace() as here:
        with _start_simulator() as simulator:
            here.configure(simulator.url, {"qps": _QPS}, {"settle": 0.2, "return_type": return_type})
            with here.running_daemon() as daemon:
                idle, before, began = peak_memory(daemon.pid), process_cpu_seconds(daemon.pid), time.monotonic()
                _drop_images(here, jpeg, pictures)
                wait_until(lambda: here.count_results() == pictures, daemon, every=0.02)
                seconds, cpu = time.monotonic() - began, process_cpu_seconds(daemon.pid) - before
                peak = peak_memory(daemon.pid)
        here.load_finished_jobs()
    return _TransferUsage(seconds, cpu, peak, idle)


def _measure_curl(jpeg: bytes, pictures: int, return_type: int, at_once: int) -> float:
    with temporary_workspace() as here:
        here.outbox.mkdir()
        with _start_simulator() as simulator:
            began = time.monotonic()
            _drop_images(here, jpeg, pictures)
            command = ["bash", str(_SCRIPT), str(here.inbox), str(here.outbox)]
            environ = {"API": simulator.url, "KEY": "benchmark", "RETURN_TYPE": str(return_type)}
            process = subprocess.run(
                command,
                env={**os.environ, **environ, "AT_ONCE": str(at_once)},
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                timeout=_TIMEOUT,
            )
            seconds = time.monotonic() - began
        sizes = [os.stat(here.outbox / name).st_size for name in os.listdir(here.outbox)]
        if sizes != [len(make_unique(jpeg, 0))] * pictures:
            raise BenchmarkError(
                f"curl transferred {len(sizes)} of {pictures} images, or incomplete ones: {process.stderr[-300:]}"
            )
    return seconds


if __name__ == "__main__":
    run_benchmark(__doc__, measure, pictures=30, curl=1)
