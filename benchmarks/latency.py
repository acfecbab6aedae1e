"""Measure how long an image waits for its POST when nothing else is waiting."""

import argparse
import hashlib
import random
import statistics
import time
from collections.abc import Iterator

from benchmarks.noise_images import make_unique, noise_jpeg
from benchmarks.processes import SimulatorProcess, temporary_workspace, to_monotonic, wait_until
from benchmarks.results import Figure, run_benchmark

# Seconds.
_SETTLE = 0.5


def measure(args: argparse.Namespace) -> Iterator[Figure]:
    """Drop images one at a time into the inbox of an idle daemon."""
    jpeg, chance = noise_jpeg(160, 120, quality=75), random.Random(0)
    settled: dict[str, float] = {}
    with temporary_workspace() as here:
        with SimulatorProcess(qps=None, processing=(0.05, 0.3)) as simulator:
            here.configure(simulator.url, {"qps": 20}, {"settle": _SETTLE})
            with here.running_daemon() as daemon:
                for number in range(args.pictures):
                    # Wait until the rate limit's second has passed, at a random offset to the daemon's timers.
                    time.sleep(1.1 + chance.random())
                    data = make_unique(jpeg, number)
                    with (here.inbox / f"{number}.jpg").open("wb") as file:
                        file.write(data)
                    settled[hashlib.sha256(data).hexdigest()] = time.monotonic() + _SETTLE
                    wait_until((here.outbox / f"{number}.jpg").exists, daemon)
        posts = simulator.accepted_creates()
        late = {job.sha256: to_monotonic(job.created_at) for job in here.load_finished_jobs()}
    yield from _summarize(
        "settled to POST", [posts[each].at - settled[each] for each in settled], median=25.0, p95=60.0
    )
    yield from _summarize("  of it to the journal", [late[each] - settled[each] for each in settled])
    yield from _summarize("  of it journal to POST", [posts[each].at - late[each] for each in settled])


def _summarize(
    name: str, seconds: list[float], median: float | None = None, p95: float | None = None
) -> Iterator[Figure]:
    yield Figure(f"{name}, median", statistics.median(seconds) * 1000, "ms", median)
    yield Figure(f"{name}, p95", statistics.quantiles(seconds, n=20, method="inclusive")[-1] * 1000, "ms", p95)


if __name__ == "__main__":
    run_benchmark(__doc__, measure, pictures=30)
