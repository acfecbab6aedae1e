"""Measure how fast the journal commits, and how soon a daemon with many finished jobs is ready again."""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.journal_history import fill_journal
from benchmarks.processes import ENVIRON, BenchmarkError, SimulatorProcess, Workspace, temporary_workspace
from benchmarks.results import Figure, run_benchmark
from picwish_watchd.clock import Clock
from picwish_watchd.job import NewJob, Stamp, State
from picwish_watchd.journal.writer import Journal

# Seconds until READY=1.
_TIMEOUT = 120.0
# Number of starts of each kind, of which the median counts.
_STARTS = 3


def measure(args: argparse.Namespace) -> Iterator[Figure]:
    """Measure the commits of a journal alone, then the daemon's start on a journal with ``--finished`` jobs."""
    yield from _measure_commits(args.commits)
    imports = statistics.median(_measure_imports() for _ in range(_STARTS))
    yield Figure("interpreter and imports alone", imports, "s")
    for lying in (False, True):
        with temporary_workspace() as here, SimulatorProcess(qps=None) as simulator:
            here.configure(simulator.url, {"qps": 2}, {"settle": 0.2})
            fill_journal(here, args.finished, args.pending, lying=lying)
            where = "in the inbox" if lying else "gone from the inbox"
            for killed in (False, True):
                end = "SIGKILL" if killed else "SIGTERM"
                ready = statistics.median(_measure_start(here, killed=killed) for _ in range(_STARTS))
                goal = None if lying else 1.0
                yield Figure(f"start to READY=1, originals {where}, after {end}", ready, "s")
                yield Figure("  without interpreter and imports", ready - imports, "s", goal)


def _measure_commits(number: int) -> Iterator[Figure]:
    with temporary_workspace() as here:
        journal = Journal.open_for_writing(here.folder / "state" / "journal.db", Clock())
        stamp = Stamp(inode=1, size=20_000, mtime_ns=1)
        new = [_new_job(here, f"{n}.jpg", stamp) for n in range(number)]
        jobs = [journal.get(job_id) for job_id in journal.add_jobs(new)]
        began = time.monotonic()
        for job in jobs:
            assert job is not None
            journal.update(job, "a line of history", note=None)
        spent = time.monotonic() - began
        pairs = []
        for job in jobs:
            assert job is not None
            began = time.monotonic()
            sent = journal.transition(job, State.SUBMITTING, "sending 20000 bytes to PicWish", reserve=5, task_id=None)
            journal.transition(
                sent, State.PENDING, "PicWish took it", task_id=f"task-{job.id}", attempts=1, answer="{}"
            )
            pairs.append((time.monotonic() - began) * 1000)
        journal.close()
    yield Figure("synced commits a second", number / spent, "/s")
    yield Figure("intent and acceptance of a submission, median", statistics.median(pairs), "ms", 2.0)
    yield Figure(
        "intent and acceptance of a submission, p95", statistics.quantiles(pairs, n=20, method="inclusive")[-1], "ms"
    )


def _new_job(here: Workspace, name: str, stamp: Stamp) -> NewJob:
    return NewJob(
        rule="bench",
        source=here.inbox / name,
        relative=Path(name),
        stamp=stamp,
        type=0,
        return_type=1,
        sync=0,
        sha256=f"{name:>064}",
        format="JPEG",
        width=110,
        height=110,
    )


def _measure_imports() -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import picwish_watchd.cli.commands.run"], env=ENVIRON, check=True)
    return time.monotonic() - began


def _measure_start(here: Workspace, *, killed: bool) -> float:
    """Return the seconds from a process's start to READY=1. With ``killed`` the previous daemon was killed."""
    if killed:
        measure_time_to_ready(here, kill=True)
    return measure_time_to_ready(here, kill=False)


def measure_time_to_ready(here: Workspace, *, kill: bool) -> float:
    """Return the seconds from a daemon's start to READY=1; then end it by SIGKILL or SIGTERM."""
    address = f"picwish-bench-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{address}")
        manager.settimeout(_TIMEOUT)
        began = time.monotonic()
        daemon = here.start_daemon(environ={"NOTIFY_SOCKET": f"@{address}"})
        try:
            while manager.recv(4096) != b"READY=1":
                pass
            return time.monotonic() - began
        except TimeoutError:
            raise BenchmarkError("the daemon was not ready in two minutes") from None
        finally:
            if kill:
                daemon.kill()
            else:
                daemon.terminate()
            daemon.wait(60)


if __name__ == "__main__":
    run_benchmark(__doc__, measure, commits=1000, finished=100_000, pending=1000)
