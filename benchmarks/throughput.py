"""How well the daemon uses the requests that PicWish allows: at QPS 2, with tasks of about 8 s."""

import argparse
from collections.abc import Iterator

from benchmarks.figures import Figure, tell
from benchmarks.pictures import noise, numbered
from benchmarks.processes import SimulatorProcess, monotonic_at, place

_QPS, _SECONDS = 2, 8.0
_PENDING = 32  # what `max_pending: auto` comes to at QPS 2


def measure(args: argparse.Namespace) -> Iterator[Figure]:
    """Everything goes ``scale`` times as fast: the rate, and PicWish's work; the simulator holds the rate."""
    jpeg, qps, seconds = noise(110, 110, quality=75), _QPS * args.scale, _SECONDS / args.scale
    with place() as here:
        for number in range(args.pictures):
            (here.inbox / f"{number}.jpg").write_bytes(numbered(jpeg, number))
        with SimulatorProcess(qps=qps, processing=(seconds, 0.3)) as simulator:
            here.configure(simulator.url, {"qps": qps, "max_pending": _PENDING}, {"settle": 0.2})
            here.run_once()
        first = min(request.at for request in simulator.creates().values())
        last = max(monotonic_at(job.completed_at or 0.0) for job in here.jobs())
    ideal = 2 * args.pictures / qps + seconds
    paced = simulator.paced()
    yield Figure("from the first POST to the last result", last - first, "s")
    yield Figure("the same / (2 requests an image / QPS + P)", (last - first) / ideal, "")
    yield Figure("requests an image", len(paced) / args.pictures, "")
    yield Figure("answers 429", sum(request.status == 429 for request in paced), "")


if __name__ == "__main__":
    tell(__doc__, measure, pictures=120, scale=10.0)
