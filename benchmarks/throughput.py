"""How well the requests that PicWish allows are used: at QPS 2, with tasks of about 8 s, beside ordinary clients."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.noise_images import make_unique, noise_jpeg
from benchmarks.processes import BenchmarkError, SimulatorProcess, Workspace, temporary_workspace, to_monotonic
from benchmarks.reference_clients import BatchOutcome, ReferenceClient, collect_outcome, reference_clients, run_client
from benchmarks.results import Figure, run_benchmark

_QPS, _SECONDS = 2, 8.0
# what `max_pending: auto` comes to at QPS 2, before anything is learnt
_MAX_PENDING = 32
# times the ideal, for an ordinary client
_TIMEOUT_FACTOR = 8
_ASYNC_GOAL, _SYNC_GOAL = 0.97, 1.07
# by simulation: the slowest of the last tasks takes longer than the median one
_SYNC_BOUND = 1.05


@dataclass(frozen=True, slots=True)
class _Workload:
    """What all clients are given. Everything goes ``scale`` times as fast: the rate, PicWish's work, pauses."""

    pictures: int
    scale: float
    sync: bool

    @property
    def ideal_seconds(self) -> float:
        """Seconds for the requests that all pictures need, and the last one's work."""
        return (1 if self.sync else 2) * self.pictures / (_QPS * self.scale) + _SECONDS / self.scale

    @property
    def lower_bound(self) -> float:
        """What nothing could beat, over the ideal."""
        return _SYNC_BOUND if self.sync else 2 * self.pictures / (_QPS * self.scale) / self.ideal_seconds

    def start_simulator(self) -> SimulatorProcess:
        """It holds the rate."""
        return SimulatorProcess(qps=_QPS * self.scale, processing=(_SECONDS / self.scale, 0.3))

    def drop_images(self, here: Workspace) -> None:
        """All pictures, as fast as the disk takes them."""
        jpeg = noise_jpeg(110, 110, quality=75)
        for number in range(self.pictures):
            (here.inbox / f"{number}.jpg").write_bytes(make_unique(jpeg, number))


def measure(args: argparse.Namespace) -> Iterator[Figure]:
    """Asynchronous and synchronous; first the daemon, then each ordinary client with the same pictures."""
    for sync in (False, True):
        race = _Workload(args.pictures, args.scale, sync)
        mode = "sync" if sync else "async"
        own = _run_daemon(race)
        yield from _summarize(f"{mode}, daemon", race, own, _SYNC_GOAL if sync else _ASYNC_GOAL)
        for client in reference_clients(sync=sync) if args.ordinary else []:
            theirs = _run_reference_client(race, client)
            yield from _summarize(f"{mode}, {client.name}", race, theirs)
            yield Figure(f"{mode}, {client.name}: time / the daemon's", theirs.seconds / own.seconds, "")


def _summarize(who: str, race: _Workload, found: BatchOutcome, goal: float | None = None) -> Iterator[Figure]:
    own = goal is not None
    formula = "N/QPS + P" if race.sync else "2N/QPS + P"
    a_picture = 1 if race.sync else 2
    yield Figure(f"{who}: first POST to last result", found.seconds, "s")
    yield Figure(
        f"{who}: the same / ({formula})",
        found.seconds / race.ideal_seconds,
        "",
        goal,
        race.lower_bound if own else None,
    )
    requests = found.requests / race.pictures
    yield Figure(f"{who}: requests an image", requests, "", a_picture * 1.025 if own else None, a_picture)
    yield Figure(f"{who}: answers 429", found.refused, "", 0 if own else None, 0)
    yield Figure(f"{who}: images lost", found.lost, "", 0 if own else None)
    yield Figure(f"{who}: images paid twice", found.paid_twice, "", 0 if own else None)


def _run_daemon(race: _Workload) -> BatchOutcome:
    with temporary_workspace() as here:
        race.drop_images(here)
        with race.start_simulator() as simulator:
            api: dict[str, object] = {"qps": _QPS * race.scale}
            # what is believed before anything is learnt is a task of 8 s
            if race.scale != 1:
                api["max_pending"] = _MAX_PENDING
            here.configure(simulator.url, api, {"settle": 0.2, "sync": int(race.sync)})
            here.run_once()
        jobs = here.load_finished_jobs()
        found = collect_outcome(here, simulator)
    if found.paid_twice:
        raise BenchmarkError(f"{found.paid_twice} pictures were paid twice")
    first = min(request.at for request in simulator.accepted_creates().values())
    last = max(to_monotonic(job.completed_at or 0.0) for job in jobs)
    return BatchOutcome(last - first, found.requests, found.refused, found.lost, found.paid_twice)


def _run_reference_client(race: _Workload, client: ReferenceClient) -> BatchOutcome:
    with temporary_workspace() as here:
        with race.start_simulator() as simulator:
            limit, every = _TIMEOUT_FACTOR * race.ideal_seconds, 1.0 / race.scale
            run_client(
                client, here, simulator, lambda: race.drop_images(here), sync=race.sync, every=every, limit=limit
            )
        return collect_outcome(here, simulator)


if __name__ == "__main__":
    run_benchmark(__doc__, measure, pictures=120, scale=10.0, ordinary=1)
