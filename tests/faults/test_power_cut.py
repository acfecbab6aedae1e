"""Power cuts: what was not synced is gone, what was acknowledged remains, and no image is posted twice.

Journal, outbox and archive are on an ext4 image of their own. At a seeded moment the daemon is stopped (SIGSTOP) and
the image is copied as it is on the disk, without what only the page cache holds. The copy replaces the image, and a new
daemon continues. Writes that reached the disk without a flush survive here; a real power cut may lose them.

This needs root and loop mounts. Run more with
``python -m tests.faults.test_power_cut --cuts 40 --images 120 --seed 1``.
"""

import argparse
import asyncio
import hashlib
import os
import random
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from picwish_watchd.job import Job, State
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.simulator import Settings, Simulator
from tests.support.harness import DaemonProcess, Harness, wait_until

pytestmark = pytest.mark.untraced

_SETTINGS = Settings(qps=None, processing=(0.15, 0.5), latency=0.002, enlarge=1.5)
_MKFS = ("mkfs.ext4", "-q", "-F", "-b", "4096", "-J", "size=4", "-E", "lazy_itable_init=0,lazy_journal_init=0")
_UNSYNCED_FILE = "written-and-not-synced"


@dataclass
class CrashDisk:
    """A small ext4 image, mounted so that data is written only when a program syncs it."""

    folder: Path
    mount_point: Path
    generation: int = 0

    @property
    def image_path(self) -> Path:
        return self.folder / f"{self.generation}.img"

    def make(self) -> None:
        self.folder.mkdir()
        self.mount_point.mkdir()
        with self.image_path.open("wb") as file:
            file.truncate(32 * 2**20)
        subprocess.run([*_MKFS, str(self.image_path)], check=True, capture_output=True)

    def mount(self) -> None:
        """Mount the image; ext4 replays its log, as after a power cut."""
        command = ["mount", "-t", "ext4", "-o", "loop,commit=600", str(self.image_path), str(self.mount_point)]
        subprocess.run(command, check=True, capture_output=True)

    def unmount(self) -> None:
        if os.path.ismount(self.mount_point):
            tried = subprocess.run(["umount", self.mount_point], capture_output=True, check=False)
            if tried.returncode != 0:
                subprocess.run(["umount", "-l", self.mount_point], check=True, capture_output=True)

    def write_counters(self) -> str:
        """Return the counters of completed and pending writes to the device (block/stat.rst of the kernel)."""
        number = os.stat(self.mount_point).st_dev
        fields = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/stat").read_text().split()
        return " ".join((fields[4], fields[6], fields[8]))

    def snapshot(self) -> Path:
        """Copy the image as a power cut would leave it; retry until nothing was written during the copy."""
        target = self.folder / f"{self.generation + 1}.img"
        while True:
            before = self.write_counters()
            shutil.copyfile(self.image_path, target)
            if before.endswith(" 0") and self.write_counters() == before:
                return target

    def restore_snapshot(self) -> None:
        """Replace the image by its copy."""
        self.unmount()
        self.image_path.unlink()
        self.generation += 1
        self.mount()


@contextmanager
def crash_disk(root: Path) -> Iterator[CrashDisk]:
    """Yield a disk that is unmounted at the end. Skip the test where mounting is refused."""
    (root / "harness").mkdir()
    disk = CrashDisk(root / "images", root / "harness" / "disk")
    if os.geteuid() != 0 or not shutil.which("mkfs.ext4") or not shutil.which("mount"):
        pytest.skip("a power cut needs root, mkfs.ext4 and mount")
    disk.make()
    try:
        disk.mount()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no loop mounts here: {error.stderr.decode(errors='replace').strip()}")
    try:
        yield disk
    finally:
        disk.unmount()


@dataclass
class DiskHarness(Harness):
    """A harness whose inbox alone is on a disk without power cuts."""

    @property
    def outbox(self) -> Path:
        return self.root / "disk/outbox"

    @property
    def journal(self) -> Path:
        return self.root / "disk/state/journal.db"


@dataclass
class CommittedState:
    """The journal's committed state before a power cut."""

    jobs: list[Job] = field(default_factory=list)
    histories: dict[int, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, journal: Path) -> "CommittedState":
        if not journal.exists():
            return cls()
        reader = JournalReader.open(journal)
        try:
            jobs = reader.jobs()
            return cls(jobs, {job.id: [event.state for event in reader.history(job.id)] for job in jobs})
        finally:
            reader.close()

    def assert_kept_in(self, after: "CommittedState") -> None:
        """Assert that all of it remains, and that results in the outbox are complete."""
        for job_id, history in self.histories.items():
            assert after.histories.get(job_id, [])[: len(history)] == history, f"job {job_id} has lost a commit"
        for job in after.jobs:
            if job.state is State.DONE:
                assert job.output is not None
                assert job.result is not None
                assert hashlib.sha256(job.output.read_bytes()).hexdigest() == job.result.sha256


async def freeze_process(process: DaemonProcess) -> None:
    """Stop all threads of the daemon and wait until the kernel has finished their system calls."""
    process.child.send_signal(signal.SIGSTOP)
    tasks = Path(f"/proc/{process.child.pid}/task")

    def stopped() -> bool:
        return all((task / "stat").read_text().rpartition(") ")[2][0] in "TZ" for task in tasks.iterdir())

    await wait_until(stopped)


async def cut_power(harness: Harness, disk: CrashDisk, pause: float) -> None:
    """Cut the power ``pause`` seconds after the daemon has paid for an image."""
    process = DaemonProcess(harness).start()
    try:
        bought = harness.count_creates()
        await wait_until(lambda: harness.count_creates() > bought or process.child.poll() is not None)
        await asyncio.sleep(pause)
        assert process.child.poll() is None, process.errors.read_text()[-2000:]
        await freeze_process(process)
        before = CommittedState.read(harness.journal)
        (disk.mount_point / _UNSYNCED_FILE).write_bytes(bytes(8192))
        disk.snapshot()
    finally:
        process.child.kill()
        with suppress(subprocess.TimeoutExpired):
            process.child.wait(10)
    disk.restore_snapshot()
    assert not (disk.mount_point / _UNSYNCED_FILE).exists(), "this was no power cut: data that was not synced exists"
    before.assert_kept_in(CommittedState.read(harness.journal))


async def run_power_cuts(root: Path, *, cuts: int, images: int, seed: int) -> Counter[State]:
    """Cut the power repeatedly, let the daemon finish, check the laws, and return the number of jobs by state."""
    chance = random.Random(seed)
    with crash_disk(root) as disk:
        async with Simulator(_SETTINGS) as simulator:
            rule: dict[str, object] = {
                "outbox": "disk/outbox",
                "on_success": "move",
                "archive": "disk/archive",
                "sidecar": False,
            }
            top: dict[str, object] = {"journal": "disk/state/journal.db", "min_free": 2**20}
            harness = DiskHarness(disk.mount_point.parent, simulator, rule=rule, top_level=top)
            for number in range(cuts):
                for image in range(number * images // cuts, (number + 1) * images // cuts):
                    harness.drop_file(f"{image}.jpg", seed=image)
                await cut_power(harness, disk, chance.uniform(0.0, 0.6))
            assert await DaemonProcess(harness, ("--once",)).start().wait_for_exit(240) in (0, 1)
            return check_final_states(harness)


def check_final_states(harness: Harness) -> Counter[State]:
    """Check the laws, and that each image was posted at most once and has ended."""
    harness.check_laws()
    posted = Counter(task.request.sha256 for task in harness.simulator.tasks.values())
    assert max(posted.values()) == 1, "an image was posted twice"
    jobs = harness.jobs()
    states = Counter(job.state for job in jobs)
    assert set(states) <= {State.DONE, State.HELD}, states
    assert {job.source for job in jobs} == set(harness.dropped)
    assert len(jobs) == len(harness.dropped)
    assert len(harness.results()) == states[State.DONE]
    assert list((harness.journal.parent / "journal.db.spool").iterdir()) == []
    assert list(harness.root.rglob("*.part")) == []
    return states


@pytest.mark.timeout(120)
async def test_a_power_cut_loses_no_commit_and_posts_no_image_twice(tmp_path: Path) -> None:
    states = await run_power_cuts(tmp_path, cuts=3, images=18, seed=20261122)
    assert states[State.DONE] >= 6


def main() -> None:
    """Start a long run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        states = asyncio.run(run_power_cuts(Path(folder), cuts=args.cuts, images=args.images, seed=args.seed))
    print(f"seed {args.seed}, {args.cuts} cuts: {dict(states)}")


if __name__ == "__main__":
    main()
