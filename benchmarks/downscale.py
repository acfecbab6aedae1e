"""Measure the downscaling of a scan with 108 million pixels: memory of the daemon and of the process, and time."""

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from benchmarks.noise_images import enlarged_noise_image
from benchmarks.processes import BenchmarkError, SimulatorProcess, peak_memory, temporary_workspace
from benchmarks.results import Figure, run_benchmark

# Seconds.
_TIMEOUT = 120.0


def measure(args: argparse.Namespace) -> Iterator[Figure]:
    """Drop one image of each format into an idle daemon's inbox."""
    for kind in ("JPEG", "PNG"):
        picture = enlarged_noise_image(args.width, args.height, kind)
        yield Figure(f"the {kind}", len(picture) / 1e6, "MB")
        daemon, child, seconds = _measure_peaks(picture, kind.lower())
        yield Figure(f"{kind}: peak of the daemon", daemon, "MB", 150)
        yield Figure(f"{kind}: peak of the downscaling process", child, "MB")
        yield Figure(f"{kind}: time of that process", seconds, "s")


def _measure_peaks(picture: bytes, suffix: str) -> tuple[float, float, float]:
    with temporary_workspace() as here:
        with SimulatorProcess(qps=None, processing=(0.05, 0.3)) as simulator:
            here.configure(simulator.url, {"qps": 200}, {"settle": 0.2, "oversize": "downscale"})
            with here.running_daemon() as daemon:
                (here.inbox / f"scan.{suffix}").write_bytes(picture)
                child, began, ended = 0.0, 0.0, 0.0
                until = time.monotonic() + _TIMEOUT
                while not here.count_results():
                    now = time.monotonic()
                    if now > until:
                        raise BenchmarkError("the image was not delivered")
                    for pid in _child_pids(daemon.pid):
                        # The process has just ended.
                        with suppress(OSError, BenchmarkError):
                            child, began, ended = max(child, peak_memory(pid)), began or now, now
                    time.sleep(0.002)
                peak = peak_memory(daemon.pid)
        (job,) = here.load_finished_jobs()
        if job.sent is None or max(job.sent.width, job.sent.height) > 4096:
            raise BenchmarkError("the image was sent without being downscaled")
    return peak, child, ended - began


def _child_pids(pid: int) -> list[int]:
    """Return the living children of all threads of ``pid`` (proc(5): children)."""
    pids: list[int] = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        with suppress(OSError):
            pids += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    return pids


if __name__ == "__main__":
    run_benchmark(__doc__, measure, width=12000, height=9000)
