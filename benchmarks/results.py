"""Figures of a benchmark: a table for users, JSON for scripts, medians and spread of several runs."""

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.processes import BenchmarkError
from picwish_watchd.cli.table import print_table


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. ``below`` is the highest value that meets the goal; ``bound`` is the theoretical optimum."""

    name: str
    #: The median of several runs.
    value: float
    unit: str
    below: float | None = None
    bound: float | None = None
    #: The lowest value of several runs.
    low: float | None = None
    #: The highest value of several runs.
    high: float | None = None

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is met, or None without a goal."""
        return None if self.below is None else self.value <= self.below

    def to_dict(self) -> dict[str, object]:
        """Return the figure as ``--json`` prints it."""
        return {**asdict(self), "met": self.is_met}

    @classmethod
    def from_dict(cls, plain: Mapping[str, object]) -> "Figure":
        """Return the figure of a dict that `to_dict` returned."""
        return cls(**{key: value for key, value in plain.items() if key != "met"})  # type: ignore[arg-type]


Measure = Callable[[argparse.Namespace], Iterable[Figure]]


def run_benchmark(description: str | None, measure: Measure, **options: float) -> None:
    """Run a benchmark as a command with these numeric options and defaults. Exit with 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=description)
    for name, default in options.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, metavar="N", help=f"default: {default}")
    add_common_options(parser)
    args = parser.parse_args()
    try:
        figures = median_of([_run_measure(measure, args) for _ in range(args.repeat)])
    except BenchmarkError as error:
        sys.exit(f"nothing was measured: {error}")
    if args.json:
        print(json.dumps({"machine": describe_machine(), "figures": [each.to_dict() for each in figures]}))
    else:
        print(describe_machine())
        print_figures([("", each) for each in figures])
    sys.exit(any(each.is_met is False for each in figures))


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of all benchmarks: ``--json`` and ``--repeat``."""
    parser.add_argument("--json", action="store_true", help="for scripts")
    parser.add_argument(
        "--repeat", type=int, default=1, metavar="N", help="number of runs: report each figure's median and spread"
    )


def median_of(runs: Sequence[Sequence[Figure]]) -> list[Figure]:
    """Return the median of each figure of several runs, with its lowest and highest value.

    Raises `BenchmarkError` if the runs measured different figures.
    """
    if len(runs) == 1:
        return list(runs[0])
    if len({tuple(figure.name for figure in run) for run in runs}) != 1:
        raise BenchmarkError("the runs measured different figures")
    medians = []
    for same in zip(*runs, strict=True):
        values = [figure.value for figure in same]
        medians.append(replace(same[0], value=statistics.median(values), low=min(values), high=max(values)))
    return medians


def print_figures(figures: Sequence[tuple[str, Figure]]) -> None:
    """Print a table of figures, each with the name of its benchmark; empty columns are left out."""
    headings = ("BENCHMARK", "FIGURE", "VALUE", "UNIT", "SPREAD", "GOAL", "BOUND", "")
    rows = [(name, *_format_row(figure)) for name, figure in figures]
    columns = [number for number in range(len(headings)) if any(row[number] for row in rows)]
    print_table([headings[n] for n in columns], [[row[n] for n in columns] for row in rows], right=("VALUE",))


def describe_machine() -> str:
    """Return a line that describes this machine."""
    return f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"


def _format_row(figure: Figure) -> tuple[str, ...]:
    goal = "" if figure.below is None else f"<= {figure.below:g}"
    bound = "" if figure.bound is None else f"{figure.bound:.3g}"
    spread = "" if figure.low is None or figure.high is None else f"{figure.low:.4g} to {figure.high:.4g}"
    verdict = {None: "", True: "met", False: "MISSED"}[figure.is_met]
    return figure.name, f"{figure.value:.4g}", figure.unit, spread, goal, bound, verdict


def _run_measure(measure: Measure, args: argparse.Namespace) -> list[Figure]:
    before = _cpu_of_other_processes()
    figures = list(measure(args))
    return [*figures, Figure("CPU that other processes took meanwhile", _cpu_of_other_processes() - before, "s")]


def _cpu_of_other_processes() -> float:
    """Return the CPU seconds of all other processes since the machine's start (proc_stat(5), in ticks)."""
    ticks = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle, waiting = ticks[3], ticks[4]
    return (sum(ticks) - idle - waiting) / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])
