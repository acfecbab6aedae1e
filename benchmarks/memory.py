"""How much memory the daemon takes while large pictures go up and come down."""

import argparse
from collections.abc import Iterator

from benchmarks.figures import Figure, tell
from benchmarks.pictures import noise, numbered
from benchmarks.processes import SimulatorProcess, peak_memory, place, wait_until

_QPS = 200  # so that as many pictures go at once as the daemon ever lets


def measure(args: argparse.Namespace) -> Iterator[Figure]:
    """Ten pictures at once, for both ways in which results come."""
    jpeg = noise(3200, 3200, quality=95)
    yield Figure("a picture", len(jpeg) / 1e6, "MB")
    for return_type, way in ((1, "by URL"), (2, "as base64")):
        idle, peak = _peak(jpeg, args.pictures, return_type)
        yield Figure(f"peak, idle ({way})", idle, "MB")
        yield Figure(f"peak, {args.pictures} pictures, results {way}", peak, "MB", 150)


def _peak(jpeg: bytes, pictures: int, return_type: int) -> tuple[float, float]:
    with place() as here:
        with SimulatorProcess(qps=None, processing=(0.05, 0.3)) as simulator:
            here.configure(simulator.url, {"qps": _QPS}, {"settle": 0.2, "return_type": return_type})
            with here.running_daemon() as daemon:
                idle = peak_memory(daemon.pid)
                for number in range(pictures):
                    (here.inbox / f"{number}.jpg").write_bytes(numbered(jpeg, number))
                wait_until(lambda: here.delivered() == pictures, daemon)
                peak = peak_memory(daemon.pid)
        here.jobs()
    return idle, peak


if __name__ == "__main__":
    tell(__doc__, measure, pictures=10)
