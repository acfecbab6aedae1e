"""Measure whether memory and CPU stay constant over 10,000 images, one after the other, at QPS 200."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.noise_images import make_unique, noise_jpeg
from benchmarks.processes import (
    BenchmarkError,
    SimulatorProcess,
    Workspace,
    peak_memory,
    process_cpu_seconds,
    resident_memory,
    temporary_workspace,
)
from benchmarks.results import Figure, run_benchmark

_QPS, _SECONDS = 200, 0.1
# Number of images in flight, so that the daemon always has work and images arrive evenly.
_IN_FLIGHT = 200
_BATCH = 50
# Seconds.
_POLL_INTERVAL = 0.1
# Share of all images after which memory must stay constant.
_WARM_UP_SHARE = 0.1
# Seconds without a result that end the measurement.
_STALL_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Sample:
    """The daemon's usage after a number of images."""

    done: int
    #: Resident memory in MB.
    memory: float
    #: CPU seconds since its start.
    cpu: float
    #: Monotonic seconds.
    at: float


def measure(args: argparse.Namespace) -> Iterator[Figure]:
    """Sample the daemon every twentieth of the way; ``--trail 1`` prints each sample to standard error."""
    with temporary_workspace() as here:
        with SimulatorProcess(qps=None, processing=(_SECONDS, 0.3)) as simulator:
            here.configure(simulator.url, {"qps": _QPS}, {"settle": 0.2})
            with here.running_daemon("benchmarks.loop_probe") as daemon:
                samples = list(_feed_images(here, daemon, args.pictures, trail=bool(args.trail)))
                peak = peak_memory(daemon.pid)
        loop_stats = json.loads(here.read_output())
        here.load_finished_jobs()
    # This fails if an image was paid twice.
    simulator.accepted_creates()
    yield from _measure_drift(samples)
    paced = simulator.rate_limited_requests()
    yield Figure("images a second", (samples[-1].done - samples[0].done) / (samples[-1].at - samples[0].at), "/s")
    yield Figure("peak memory", peak, "MB", 150.0)
    yield Figure("requests per image", len(paced) / args.pictures, "", 2.05, 2.0)
    yield Figure("429 responses", sum(request.status == 429 for request in paced), "", 0)
    yield Figure("synced commits per image", loop_stats["commits"] / args.pictures, "")
    yield Figure("most work of the event loop in one turn, after the start", loop_stats["work"] * 1000, "ms", 50.0)
    yield Figure("longest standstill of the event loop", loop_stats["longest"] * 1000, "ms")
    yield Figure("standstills over 50 ms", len(loop_stats["long"]), "")


def _feed_images(here: Workspace, daemon: "subprocess.Popen[bytes]", pictures: int, *, trail: bool) -> Iterator[Sample]:
    """Drop images as fast as results come; return a sample at the start and every twentieth of the way."""
    jpeg, step = noise_jpeg(110, 110, quality=75), max(1, pictures // 20)
    dropped, last, due, last_result_at = 0, -1, 0, time.monotonic()
    while last < pictures:
        done = here.count_results()
        now = time.monotonic()
        last_result_at = now if done > last else last_result_at
        last = done
        if daemon.poll() is not None or now - last_result_at > _STALL_TIMEOUT:
            raise BenchmarkError(f"after {done} images the daemon delivered no more")
        while dropped < min(pictures, done + _IN_FLIGHT) and dropped - done + _BATCH <= _IN_FLIGHT:
            dropped = _drop_images(here, jpeg, dropped, min(pictures, dropped + _BATCH))
        if done >= due:
            sample = Sample(done, resident_memory(daemon.pid), process_cpu_seconds(daemon.pid), now)
            if trail:
                print(sample, file=sys.stderr, flush=True)
            due = done - done % step + step
            yield sample
        time.sleep(_POLL_INTERVAL)


def _drop_images(here: Workspace, jpeg: bytes, begin: int, end: int) -> int:
    for number in range(begin, end):
        unseen = here.folder / "next.jpg"
        unseen.write_bytes(make_unique(jpeg, number))
        os.rename(unseen, here.inbox / f"{number}.jpg")
    return end


def _measure_drift(samples: list[Sample]) -> Iterator[Figure]:
    pictures = samples[-1].done
    warm = [sample for sample in samples if sample.done >= pictures * _WARM_UP_SHARE]
    slope, _ = statistics.linear_regression([s.done / 1000 for s in warm], [s.memory for s in warm])
    yield Figure("memory growth in 1,000 images, after the first tenth", slope, "MB", 1.0)
    yield Figure("memory at the end", samples[-1].memory, "MB")
    quarters = [_cpu_per_image(samples, pictures * n / 4, pictures * (n + 1) / 4) for n in range(4)]
    for n, cpu in enumerate(quarters):
        yield Figure(f"CPU per image, quarter {n + 1}", cpu * 1000, "ms")
    yield Figure("CPU per image, quarter 4 / quarter 2", quarters[3] / quarters[1], "", 1.1)


def _cpu_per_image(samples: list[Sample], begin: float, end: float) -> float:
    first = next(sample for sample in samples if sample.done >= begin)
    last = next(sample for sample in samples if sample.done >= end)
    return (last.cpu - first.cpu) / (last.done - first.done)


if __name__ == "__main__":
    run_benchmark(__doc__, measure, pictures=10_000, trail=0)
