"""What one walk of an inbox full of known files costs, in CPU time of this process."""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, tell
from benchmarks.processes import BenchmarkError
from picwish_watchd.inbox.name_filter import NameFilter
from picwish_watchd.inbox.scanner import Away, Walker

_INCLUDE = ("*.jpg", "*.jpeg", "*.bmp", "*.png", "*.webp", "*.tif", "*.tiff")
_IN_A_FOLDER = 1000
_WALKS = 7  # the median counts


def measure(args: argparse.Namespace) -> Iterator[Figure]:
    """Walks ``--files`` names in folders of a thousand, first all new, then all known."""
    with tempfile.TemporaryDirectory(prefix="picwish-bench-") as folder:
        for number in range(args.files):
            path = Path(folder) / f"{number // _IN_A_FOLDER:03d}" / f"{number}.jpg"
            path.parent.mkdir(exist_ok=True)
            path.touch()
        walker = Walker(folder, NameFilter(_INCLUDE, ()), recursive=True, follow_symlinks=False)
        yield Figure("the first walk, all names new", _walk(walker, args.files), "s")
        yield Figure("a walk, all names known", statistics.median(_walk(walker, 0) for _ in range(_WALKS)), "s", 0.15)


def _walk(walker: Walker, expected: int) -> float:
    began = time.process_time()
    sightings = walker.walk()
    if isinstance(sightings, Away):
        raise BenchmarkError(sightings.reason)
    found = len(list(sightings))
    spent = time.process_time() - began
    if found != expected:
        raise BenchmarkError(f"a walk found {found} files, not {expected}")
    return spent


if __name__ == "__main__":
    tell(__doc__, measure, files=100_000)
