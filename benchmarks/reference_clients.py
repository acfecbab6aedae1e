"""Run the reference clients, each as a process of its own with a time limit."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import BenchmarkError, SimulatorProcess, Workspace, to_monotonic

_FOLDER = Path(__file__).parent / "reference"
# Seconds after which a client surely watches the folder.
_WARM_UP = 1.0


@dataclass(frozen=True, slots=True)
class ReferenceClient:
    """One reference client."""

    name: str
    command: tuple[str, ...]
    #: Number of images that it processes at a time.
    concurrency: int


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """The outcome of one run of a client."""

    #: From the first POST to the last result in the outbox.
    seconds: float
    #: Number of creates and queries, including refused ones.
    requests: int
    #: Number of 429 responses.
    refused: int
    #: Number of images without a result at the time limit.
    lost: int
    #: Number of images that were accepted more than once.
    paid_twice: int


def reference_clients(*, sync: bool) -> list[ReferenceClient]:
    """Return both clients. With ``sync`` they use twice as many threads, because a thread only waits for its response.

    Raises `BenchmarkError` where bash, curl or jq is missing.
    """
    missing = [tool for tool in ("bash", "curl", "jq") if shutil.which(tool) is None]
    if missing:
        raise BenchmarkError(f"the shell script needs {', '.join(missing)}; --ordinary 0 leaves both clients out")
    watch = "inotifywait" if shutil.which("inotifywait") else "a loop of ls, for inotifywait is missing"
    times = 2 if sync else 1
    return [
        ReferenceClient(f"shell, {watch} + curl, {4 * times} at once", ("bash", str(_FOLDER / "watch.sh")), 4 * times),
        ReferenceClient(
            f"Python, watchdog + {8 * times} threads", (sys.executable, str(_FOLDER / "watch.py")), 8 * times
        ),
    ]


def run_client(
    client: ReferenceClient,
    here: Workspace,
    simulator: SimulatorProcess,
    drop: Callable[[], None],
    *,
    sync: bool,
    every: float,
    limit: float,
) -> None:
    """Start a client, drop the images, and stop it when all results exist or ``limit`` seconds have passed."""
    here.outbox.mkdir()
    environ = {"API": simulator.url, "KEY": "benchmark", "SYNC": str(int(sync)), "EVERY": f"{every:g}"}
    with (here.folder / "client.log").open("wb") as log:
        process = subprocess.Popen(
            [*client.command, str(here.inbox), str(here.outbox)],
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, **environ, "AT_ONCE": str(client.concurrency)},
        )
    try:
        time.sleep(_WARM_UP)
        drop()
        pictures, until = len(os.listdir(here.inbox)), time.monotonic() + limit
        while here.count_results() < pictures and time.monotonic() < until and process.poll() is None:
            time.sleep(0.05)
    finally:
        # End all curl processes as well.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def collect_outcome(here: Workspace, simulator: SimulatorProcess) -> BatchOutcome:
    """Return the outcome from the simulator's log and the folders; the simulator must have ended."""
    creates = [request for request in simulator.rate_limited_requests() if request.operation == "create"]
    accepted = Counter(request.sha256 for request in creates if request.status == 200)
    results = [here.outbox / name for name in os.listdir(here.outbox) if not name.startswith(".")]
    if not results or not creates:
        raise BenchmarkError(f"a client delivered nothing: {(here.folder / 'client.log').read_text()[-300:]}")
    dropped = {_hash_file(here.inbox / name) for name in os.listdir(here.inbox)}
    last = max(to_monotonic(result.stat().st_mtime) for result in results)
    return BatchOutcome(
        seconds=last - min(request.at for request in creates),
        requests=len(simulator.rate_limited_requests()),
        refused=sum(request.status == 429 for request in simulator.rate_limited_requests()),
        lost=len(dropped - {_hash_file(result) for result in results}),
        paid_twice=sum(times > 1 for times in accepted.values()),
    )


def _hash_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
