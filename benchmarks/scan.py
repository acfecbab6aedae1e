"""Measure one scan of an inbox full of known files, in CPU time of this process."""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.processes import BenchmarkError
from benchmarks.results import Figure, run_benchmark
from picwish_watchd.inbox.name_filter import NameFilter
from picwish_watchd.inbox.scanner import InboxUnavailable, Scanner

_INCLUDE = ("*.jpg", "*.jpeg", "*.bmp", "*.png", "*.webp", "*.tif", "*.tiff")
_FILES_PER_FOLDER = 1000
# Number of scans, of which the median counts.
_SCANS = 7


def measure(args: argparse.Namespace) -> Iterator[Figure]:
    """Scan ``--files`` names in folders of a thousand, first all new, then all known."""
    with tempfile.TemporaryDirectory(prefix="picwish-bench-") as folder:
        for number in range(args.files):
            path = Path(folder) / f"{number // _FILES_PER_FOLDER:03d}" / f"{number}.jpg"
            path.parent.mkdir(exist_ok=True)
            path.touch()
        scanner = Scanner(folder, NameFilter(_INCLUDE, ()), recursive=True, follow_symlinks=False)
        yield Figure("the first scan, all names new", _time_scan(scanner, args.files), "s")
        yield Figure(
            "a scan, all names known", statistics.median(_time_scan(scanner, 0) for _ in range(_SCANS)), "s", 0.15
        )


def _time_scan(scanner: Scanner, expected: int) -> float:
    began = time.process_time()
    sightings = scanner.scan()
    if isinstance(sightings, InboxUnavailable):
        raise BenchmarkError(sightings.reason)
    file_count = len(list(sightings))
    spent = time.process_time() - began
    if file_count != expected:
        raise BenchmarkError(f"a scan found {file_count} files, not {expected}")
    return spent


if __name__ == "__main__":
    run_benchmark(__doc__, measure, files=100_000)
