"""Measure how fast ``run --once`` processes a full inbox when PicWish allows 200 requests a second."""

import argparse
from collections.abc import Iterator

from benchmarks.noise_images import make_unique, noise_jpeg
from benchmarks.processes import SimulatorProcess, temporary_workspace, to_monotonic
from benchmarks.results import Figure, run_benchmark

_QPS = 200


def measure(args: argparse.Namespace) -> Iterator[Figure]:
    """Fill an inbox with images of 20 kB and drain it; the simulator accepts every request."""
    jpeg = noise_jpeg(110, 110, quality=75)
    with temporary_workspace() as here:
        for number in range(args.pictures):
            (here.inbox / f"{number}.jpg").write_bytes(make_unique(jpeg, number))
        with SimulatorProcess(qps=None, processing=(0.05, 0.3)) as simulator:
            here.configure(simulator.url, {"qps": _QPS}, {"settle": 0.2})
            spent = here.run_once()
        posts = simulator.accepted_creates()
        last = max(to_monotonic(job.completed_at or 0.0) for job in here.load_finished_jobs())
    first = min(request.at for request in posts.values())
    ideal = args.pictures * 2 / _QPS
    paced = simulator.rate_limited_requests()
    yield Figure("from the process's start to its end", spent.seconds, "s", 1.3 * ideal)
    yield Figure("from the first POST to the last result", last - first, "s", 1.3 * ideal)
    yield Figure(
        "from the first POST to the last result / (2 requests per image / QPS)", (last - first) / ideal, "", 1.3
    )
    yield Figure("CPU of the daemon per image", spent.cpu / args.pictures * 1000, "ms")
    yield Figure("requests per image", len(paced) / args.pictures, "")
    yield Figure("429 responses", sum(request.status == 429 for request in paced), "")
    yield Figure("bytes per image", len(make_unique(jpeg, 0)), "B")


if __name__ == "__main__":
    run_benchmark(__doc__, measure, pictures=1000)
