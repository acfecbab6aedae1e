"""Measure a burst of images into new nested folders: the time until each is in the journal, once."""

import argparse
import json
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from benchmarks.noise_images import make_unique, noise_jpeg
from benchmarks.processes import (
    BenchmarkError,
    SimulatorProcess,
    Workspace,
    peak_memory,
    process_cpu_seconds,
    temporary_workspace,
)
from benchmarks.results import Figure, run_benchmark

_FILES_PER_FOLDER = 100
# Seconds until the daemon has loaded all that it needs.
_WARM_UP = 5.0
# Size of noise at quality 50, without headers.
_BYTES_PER_PIXEL = 1.0
# Seconds between queries of the journal.
_POLL_INTERVAL = 0.2


def measure(args: argparse.Namespace) -> Iterator[Figure]:
    """Write ``--files`` images of ``--kilobytes`` each as fast as possible, a hundred per folder, all folders new."""
    jpeg = _make_image(args.kilobytes)
    with temporary_workspace() as here, SimulatorProcess(qps=2) as simulator:
        here.configure(simulator.url, {"qps": 2}, {"settle": args.settle})
        with here.running_daemon("benchmarks.loop_probe") as daemon:
            time.sleep(_WARM_UP)
            before = process_cpu_seconds(daemon.pid)
            began = time.monotonic()
            _drop_images(here.inbox, jpeg, args.files)
            dropped = time.monotonic() - began
            queued = _wait_until_queued(here, daemon, args.files) - began
            spent = process_cpu_seconds(daemon.pid) - before
            peak = peak_memory(daemon.pid)
        gaps = json.loads(here.read_output())
        _check_jobs(here, args.files)
    yield Figure("writing the files", dropped, "s")
    yield Figure("all in the journal, from the first file's write", queued, "s", 1.5 * dropped + 5)
    yield Figure("CPU of the daemon per file", spent / args.files * 1000, "ms")
    yield Figure("most work of the event loop in one turn, after the start", gaps["work"] * 1000, "ms", 50.0)
    yield Figure("longest standstill of the event loop", gaps["longest"] * 1000, "ms", 50.0)
    yield Figure("standstills over 50 ms", len(gaps["long"]), "")
    yield Figure("peak memory of the daemon", peak, "MB", 150.0)


def _make_image(kilobytes: int) -> bytes:
    side = 8 * max(round((kilobytes * 1000 / _BYTES_PER_PIXEL) ** 0.5 / 8), 2)
    return noise_jpeg(side, side, quality=50)


def _drop_images(inbox: Path, jpeg: bytes, files: int) -> None:
    for number in range(files):
        folder = inbox / f"{number // _FILES_PER_FOLDER // 10:03d}" / f"{number // _FILES_PER_FOLDER:04d}"
        if number % _FILES_PER_FOLDER == 0:
            folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(make_unique(jpeg, number))


def _wait_until_queued(here: Workspace, daemon: "subprocess.Popen[bytes]", files: int) -> float:
    journal = f"file:{here.folder / 'state' / 'journal.db'}?mode=ro"
    with closing(sqlite3.connect(journal, uri=True)) as connection:
        while connection.execute("SELECT count(*) FROM job").fetchone()[0] < files:
            if daemon.poll() is not None:
                raise BenchmarkError("the daemon has ended")
            time.sleep(_POLL_INTERVAL)
    return time.monotonic()


def _check_jobs(here: Workspace, files: int) -> None:
    with closing(sqlite3.connect(here.folder / "state" / "journal.db")) as connection:
        jobs, sources, contents, refused = connection.execute(
            "SELECT count(*), count(DISTINCT source), count(DISTINCT sha256), sum(state = 'rejected') FROM job"
        ).fetchone()
    if not jobs == sources == contents == files or refused:
        raise BenchmarkError(
            f"{files} files, but {jobs} jobs of {sources} files with {contents} contents, {refused} refused"
        )


if __name__ == "__main__":
    run_benchmark(__doc__, measure, files=50_000, kilobytes=100, settle=1.0)
