"""All benchmarks, one after the other, in one table: ``python -m benchmarks``."""

import argparse
import json
import subprocess
import sys

from benchmarks.results import Figure, add_common_options, describe_machine, print_figures

#: Name -> what it measures, short ones first. Each is a command of its own, ``python -m benchmarks.NAME``.
BENCHMARKS = {
    "startup": "how long --help, status and the start of the daemon take, and what of it is imports",
    "scan": "one walk of an inbox of 100,000 known files",
    "latency": "a picture dropped into an idle inbox: how long until its POST",
    "drain": "run --once over 1,000 pictures, when PicWish allows 200 requests a second",
    "downscale": "a JPEG and a PNG of 12000 x 9000 pixels, with oversize: downscale",
    "journal": "commits a second; the start with a long past",
    "large_files": "30 pictures of 25 MB up and down, by URL and as base64, beside curl",
    "throughput": "120 pictures at QPS 2, asynchronous and synchronous, beside two ordinary clients",
    "idle": "at rest with 100,000 finished files: share of a core, memory",
    "scrape": "/metrics and /healthz with 100,000 finished jobs",
    "burst": "50,000 pictures dropped into new folders: how long until all are in the journal",
    "soak": "10,000 pictures at QPS 200: memory and CPU an image over time",
}


def main() -> int:
    """Run the chosen benchmarks; return 1 if a goal is missed or a figure could not be measured."""
    names = "\n".join(f"  {name:<12}{purpose}" for name, purpose in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"{__doc__}\n\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS), metavar="NAME", help="these benchmarks alone"
    )
    add_common_options(parser)
    args = parser.parse_args()
    figures: list[tuple[str, Figure]] = []
    unmeasured: list[str] = []
    for name in args.only:
        print(f"{name}: {BENCHMARKS[name]} ...", file=sys.stderr, flush=True)
        results = _run(name, args.repeat)
        figures += [(name, figure) for figure in results]
        unmeasured += [] if results else [name]
    _print(figures, unmeasured, as_json=args.json)
    return int(bool(unmeasured) or any(figure.is_met is False for _, figure in figures))


def _run(name: str, repeat: int) -> list[Figure]:
    """Run a benchmark in a process of its own, so that no other one's memory counts."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", "--repeat", str(repeat)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout
    return [Figure.from_dict(each) for each in json.loads(output)["figures"]] if output else []


def _print(figures: list[tuple[str, Figure]], unmeasured: list[str], *, as_json: bool) -> None:
    if as_json:
        plain = [{"benchmark": name, **figure.to_dict()} for name, figure in figures]
        print(json.dumps({"machine": describe_machine(), "figures": plain, "not_measured": unmeasured}))
        return
    print(describe_machine())
    print_figures(figures)
    for name in unmeasured:
        print(f"{name}: nothing was measured")


if __name__ == "__main__":
    sys.exit(main())
