"""Measure the use of the allowed requests at QPS 2 with tasks of about 8 s, beside the reference clients."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.noise_images import make_unique, noise_jpeg
from benchmarks.processes import BenchmarkError, SimulatorProcess, Workspace, temporary_workspace, to_monotonic
from benchmarks.reference_clients import BatchOutcome, ReferenceClient, collect_outcome, reference_clients, run_client
from benchmarks.results import Figure, run_benchmark

_QPS, _SECONDS = 2, 8.0
# The value of `max_pending: auto` at QPS 2 before any task duration is known.
_MAX_PENDING = 32
# Multiple of the ideal time after which a reference client is stopped.
_TIMEOUT_FACTOR = 8
_ASYNC_GOAL, _SYNC_GOAL = 0.97, 1.07
# From a simulation: the slowest of the last tasks takes longer than the median one.
_SYNC_BOUND = 1.05


@dataclass(frozen=True, slots=True)
class _Workload:
    """The work of one run. Rates, PicWish's processing and pauses are all ``scale`` times as fast."""

    pictures: int
    scale: float
    sync: bool

    @property
    def ideal_seconds(self) -> float:
        """Seconds for the requests of all images and the processing of the last one."""
        return (1 if self.sync else 2) * self.pictures / (_QPS * self.scale) + _SECONDS / self.scale

    @property
    def lower_bound(self) -> float:
        """The theoretical optimum as a multiple of the ideal time."""
        return _SYNC_BOUND if self.sync else 2 * self.pictures / (_QPS * self.scale) / self.ideal_seconds

    def start_simulator(self) -> SimulatorProcess:
        """Start a simulator that enforces the rate."""
        return SimulatorProcess(qps=_QPS * self.scale, processing=(_SECONDS / self.scale, 0.3))

    def drop_images(self, here: Workspace) -> None:
        """Drop all images as fast as the disk accepts them."""
        jpeg = noise_jpeg(110, 110, quality=75)
        for number in range(self.pictures):
            (here.inbox / f"{number}.jpg").write_bytes(make_unique(jpeg, number))


def measure(args: argparse.Namespace) -> Iterator[Figure]:
    """Measure asynchronous and synchronous runs of the daemon and of each reference client with the same images."""
    for sync in (False, True):
        workload = _Workload(args.pictures, args.scale, sync)
        mode = "sync" if sync else "async"
        own = _run_daemon(workload)
        yield from _summarize(f"{mode}, daemon", workload, own, _SYNC_GOAL if sync else _ASYNC_GOAL)
        for client in reference_clients(sync=sync) if args.ordinary else []:
            theirs = _run_reference_client(workload, client)
            yield from _summarize(f"{mode}, {client.name}", workload, theirs)
            yield Figure(f"{mode}, {client.name}: time / the daemon's", theirs.seconds / own.seconds, "")


def _summarize(who: str, workload: _Workload, outcome: BatchOutcome, goal: float | None = None) -> Iterator[Figure]:
    own = goal is not None
    formula = "N/QPS + P" if workload.sync else "2N/QPS + P"
    a_picture = 1 if workload.sync else 2
    yield Figure(f"{who}: first POST to last result", outcome.seconds, "s")
    yield Figure(
        f"{who}: first POST to last result / ({formula})",
        outcome.seconds / workload.ideal_seconds,
        "",
        goal,
        workload.lower_bound if own else None,
    )
    requests = outcome.requests / workload.pictures
    yield Figure(f"{who}: requests per image", requests, "", a_picture * 1.025 if own else None, a_picture)
    yield Figure(f"{who}: 429 responses", outcome.refused, "", 0 if own else None, 0)
    yield Figure(f"{who}: images lost", outcome.lost, "", 0 if own else None)
    yield Figure(f"{who}: images paid twice", outcome.paid_twice, "", 0 if own else None)


def _run_daemon(workload: _Workload) -> BatchOutcome:
    with temporary_workspace() as here:
        workload.drop_images(here)
        with workload.start_simulator() as simulator:
            api: dict[str, object] = {"qps": _QPS * workload.scale}
            # Before any task duration is known, the daemon assumes 8 s.
            if workload.scale != 1:
                api["max_pending"] = _MAX_PENDING
            here.configure(simulator.url, api, {"settle": 0.2, "sync": int(workload.sync)})
            here.run_once()
        jobs = here.load_finished_jobs()
        outcome = collect_outcome(here, simulator)
    if outcome.paid_twice:
        raise BenchmarkError(f"{outcome.paid_twice} images were paid twice")
    first = min(request.at for request in simulator.accepted_creates().values())
    last = max(to_monotonic(job.completed_at or 0.0) for job in jobs)
    return BatchOutcome(last - first, outcome.requests, outcome.refused, outcome.lost, outcome.paid_twice)


def _run_reference_client(workload: _Workload, client: ReferenceClient) -> BatchOutcome:
    with temporary_workspace() as here:
        with workload.start_simulator() as simulator:
            limit, every = _TIMEOUT_FACTOR * workload.ideal_seconds, 1.0 / workload.scale
            run_client(
                client,
                here,
                simulator,
                lambda: workload.drop_images(here),
                sync=workload.sync,
                every=every,
                limit=limit,
            )
        return collect_outcome(here, simulator)


if __name__ == "__main__":
    run_benchmark(__doc__, measure, pictures=120, scale=10.0, ordinary=1)
