"""A burst of files into folders that are created meanwhile."""

import asyncio
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.noise_images import make_unique
from tests.support.harness import DaemonProcess, Harness, wait_until
from tests.support.sample_images import make_image

FILES, WRITERS = 1200, 3


def _keep_killing_validators(pid: int) -> int:
    """Kill the daemon's child processes all the time, as the OOM killer might, and return how many were killed."""
    killed = 0
    # The process may have ended meanwhile.
    with suppress(OSError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                os.kill(int(child), signal.SIGKILL)
                killed += 1
    return killed


@pytest.mark.untraced
async def test_a_burst_into_new_nested_folders_makes_one_job_of_each_file(harness: Harness) -> None:
    harness.api["qps"] = 1
    # All files are waiting at the same time.
    harness.rule["settle"] = "1s"
    jpeg = make_image("jpeg")
    process = DaemonProcess(harness, fresh=True).start()
    await wait_until(lambda: "daemon.ready" in process.errors.read_text())

    def write(start: int) -> None:
        for number in range(start, FILES - 200, WRITERS):
            folder = harness.inbox / f"{number // 400}" / f"{number // 80}" / f"{number // 40}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.jpg").write_bytes(make_unique(jpeg, number))

    tree = harness.root / "tree"
    for number in range(FILES - 200, FILES):
        (tree / f"{number // 10}").mkdir(parents=True, exist_ok=True)
        (tree / f"{number // 10}" / f"{number}.jpg").write_bytes(make_unique(jpeg, number))
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, range(WRITERS)))
    shutil.move(tree, harness.inbox / "moved")
    killed = 0
    while len(harness.jobs()) < FILES:
        killed += _keep_killing_validators(process.child.pid)
        await asyncio.sleep(0.05)
    assert killed > 0
    assert await process.stop() == 0

    again = DaemonProcess(harness, fresh=True).start()
    await wait_until(lambda: again.errors.read_text().count("daemon.ready") == 2)
    assert await again.stop() == 0
    jobs = harness.jobs()
    assert len(jobs) == len({job.source for job in jobs}) == len({job.sha256 for job in jobs}) == FILES
    assert all(job.problem is None for job in jobs)
