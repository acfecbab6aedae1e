"""What a benchmark found: a table for people, JSON for scripts."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.processes import BenchmarkError
from picwish_watchd.cli.table import print_table


@dataclass(frozen=True, slots=True)
class Figure:
    """One number. ``below`` is the goal, where there is one."""

    name: str
    value: float
    unit: str
    below: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal was reached."""
        return None if self.below is None else self.value < self.below


def tell(description: str, measure: Callable[[argparse.Namespace], Iterable[Figure]], **options: float) -> None:
    """The command line of a benchmark: ``options`` are numbers with their defaults. Exits 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="for scripts")
    for name, default in options.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, metavar="N", help=f"default: {default}")
    args = parser.parse_args()
    before = _cpu_of_others()
    try:
        figures = list(measure(args))
    except BenchmarkError as error:
        sys.exit(f"nothing was measured: {error}")
    figures.append(Figure("CPU that other processes took meanwhile", _cpu_of_others() - before, "s"))
    if args.json:
        print(json.dumps({"machine": _machine(), "figures": [{**asdict(each), "met": each.met} for each in figures]}))
    else:
        print(_machine())
        print_table(("FIGURE", "VALUE", "UNIT", "GOAL", ""), map(_row, figures), right=("VALUE",))
    sys.exit(any(each.met is False for each in figures))


def _row(figure: Figure) -> tuple[str, ...]:
    goal = "" if figure.below is None else f"< {figure.below:g}"
    verdict = {None: "", True: "met", False: "MISSED"}[figure.met]
    return figure.name, f"{figure.value:.4g}", figure.unit, goal, verdict


def _cpu_of_others() -> float:
    """Seconds of CPU that all processes but ours have used since the machine started (proc_stat(5), in ticks)."""
    ticks = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle, waiting = ticks[3], ticks[4]
    return (sum(ticks) - idle - waiting) / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


def _machine() -> str:
    return f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"
