"""``demo``: make a complete round trip on this machine, with the built-in simulator."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from picwish_watchd.cli.progress import ProgressReporter, cancel_and_wait
from picwish_watchd.cli.table import print_table
from picwish_watchd.config.loader import load_config
from picwish_watchd.daemon.daemon import Daemon
from picwish_watchd.job import Job
from picwish_watchd.log.setup import configure_logging
from picwish_watchd.simulator import Settings, Simulator
from picwish_watchd.simulator.samples import draw_samples

_DEMO_CONFIG = """\
# Configuration of the demo. With a PicWish key and another base_url it would spend real credits.
api:
  base_url: {url}
journal: state/journal.db
rules:
  - name: demo
    inbox: inbox
    outbox: outbox
    settle: 500ms
"""


def run(_args: argparse.Namespace) -> int:
    """Draw pictures, run simulator and daemon until all are enhanced, and print the results."""
    folder = Path(tempfile.mkdtemp(prefix="picwish-demo-"))
    inbox = folder / "inbox"
    inbox.mkdir()
    pictures = draw_samples(inbox)
    print(
        f"Drew {len(pictures)} small pictures into {inbox}\n"
        "A simulator replaces PicWish on this machine: no key, no cost.",
        file=sys.stderr,
        flush=True,
    )
    return asyncio.run(_run_round_trip(folder))


async def _run_round_trip(folder: Path) -> int:
    async with Simulator(Settings(processing=(1.2, 0.3))) as simulator:
        file = folder / "picwish-watchd.yaml"
        file.write_text(_DEMO_CONFIG.format(url=simulator.url))
        config = load_config(file, {})
        progress = ProgressReporter(sys.stderr)
        configure_logging("warning", "auto", progress.stream)
        daemon = Daemon(config, "demo-key")
        follower = asyncio.create_task(progress.follow(daemon))
        try:
            code = await daemon.run(once=True)
        finally:
            await cancel_and_wait(follower)
    _print_results(daemon.finished_jobs, folder)
    return code


def _print_results(jobs: list[Job], folder: Path) -> None:
    rows = []
    for job in jobs:
        assert job.result is not None
        assert job.output is not None
        seconds = (job.completed_at or 0.0) - job.created_at
        rows.append(
            (
                job.relative,
                f"{job.width} x {job.height}",
                f"{job.result.width} x {job.result.height}",
                job.output.relative_to(folder),
                job.credits,
                f"{seconds:.1f} s",
            )
        )
    print_table(("FILE", "BEFORE", "AFTER", "RESULT", "CREDITS", "TIME"), rows, right=("CREDITS", "TIME"))
    print(f"\nWith PicWish, {sum(job.credits for job in jobs)} credits would have been paid.")
    print(f"Everything is in {folder}")
