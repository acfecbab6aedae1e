"""Every way in which a file arrives ends in exactly one job, and that job has the complete file.

All cases run in one inbox at the same time, each in a folder of its own. Between two steps of a case more time than
`settle` passes: the real watcher scans, and the real intake validates the files.
"""

import ctypes
import hashlib
import mmap
import os
import queue
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from picwish_watchd.config.schema import Rule
from picwish_watchd.inbox.name_filter import NameFilter
from picwish_watchd.inbox.scanner import FileSeen
from picwish_watchd.inbox.watcher import Inbox, ScanReport, Watcher
from picwish_watchd.job import ErrorCode, Job, State
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pipeline.intake import Intake
from tests.support.fake_clock import FakeClock
from tests.support.harness import Harness
from tests.support.sample_images import BASIC_KINDS, make_image
from tests.support.step_context import open_step_context

# Longest time of a scan in seconds.
TIMEOUT = 20.0
# Seconds. No file waits longer than a minute for its next look.
SETTLE, LONG = 2.0, 90.0


@dataclass(frozen=True)
class ArrivalFolders:
    """The folders of one case."""

    #: The case's folder in the inbox.
    inbox: Path
    #: A folder on the same file system, outside of the inbox.
    beside: Path
    #: A folder on another file system.
    elsewhere: Path
    seed: int

    @property
    def file(self) -> Path:
        return self.inbox / "scan.jpg"

    @property
    def image_bytes(self) -> bytes:
        return make_image("jpeg", 320, 240, seed=self.seed)

    def make_image(self, folder: Path) -> Path:
        """Write the complete image outside of the inbox."""
        path = folder / "ready.jpg"
        path.write_bytes(self.image_bytes)
        return path

    def make_tree(self, folder: Path) -> Path:
        """Write a folder with two levels and an image of each kind."""
        root = folder / "tree"
        for number, kind in enumerate(BASIC_KINDS):
            below = root / "a" / "b" if number % 2 else root / "a"
            below.mkdir(parents=True, exist_ok=True)
            (below / f"{kind}.jpg").write_bytes(make_image(kind, seed=self.seed))
        return root


ArrivalMethod = Callable[[ArrivalFolders], Iterator[None]]


def run_command(*command: str | Path) -> None:
    subprocess.run(command, check=True, timeout=TIMEOUT)


def cp(folders: ArrivalFolders) -> Iterator[None]:
    run_command("cp", folders.make_image(folders.beside), folders.file)
    yield


def cp_with_its_time(folders: ArrivalFolders) -> Iterator[None]:
    ready = folders.make_image(folders.beside)
    os.utime(ready, (1e9, 1e9))
    run_command("cp", "-p", ready, folders.file)
    yield


def mv(folders: ArrivalFolders) -> Iterator[None]:
    run_command("mv", folders.make_image(folders.beside), folders.file)
    yield


def mv_from_another_file_system(folders: ArrivalFolders) -> Iterator[None]:
    run_command("mv", folders.make_image(folders.elsewhere), folders.file)
    yield


def ln(folders: ArrivalFolders) -> Iterator[None]:
    run_command("ln", folders.make_image(folders.beside), folders.file)
    yield


def ln_s(folders: ArrivalFolders) -> Iterator[None]:
    run_command("ln", "-s", folders.make_image(folders.elsewhere), folders.file)
    yield


def ln_s_to_nothing(folders: ArrivalFolders) -> Iterator[None]:
    run_command("ln", "-s", folders.elsewhere / "nothing", folders.file)
    yield


def ln_s_of_what_grows(folders: ArrivalFolders) -> Iterator[None]:
    target = folders.elsewhere / "target.jpg"
    target.write_bytes(folders.image_bytes[:3000])
    folders.file.symlink_to(target)
    yield
    with target.open("ab") as file:
        file.write(folders.image_bytes[3000:])
    yield


def part_and_rename(folders: ArrivalFolders) -> Iterator[None]:
    part = folders.file.with_name("scan.jpg.part")
    part.write_bytes(folders.image_bytes[:3000])
    yield
    part.write_bytes(folders.image_bytes)
    yield
    part.rename(folders.file)
    yield


def rsync(folders: ArrivalFolders) -> Iterator[None]:
    part = folders.file.with_name(".scan.jpg.Xy12aB")
    part.write_bytes(folders.image_bytes)
    yield
    os.utime(part, (1e9, 1e9))
    part.rename(folders.file)
    yield


def four_appends_with_pauses(folders: ArrivalFolders) -> Iterator[None]:
    step = len(folders.image_bytes) // 4 + 1
    for start in range(0, len(folders.image_bytes), step):
        with folders.file.open("ab") as file:
            file.write(folders.image_bytes[start : start + step])
        yield


def writer_killed_half_way_then_rewritten(folders: ArrivalFolders) -> Iterator[None]:
    ready = folders.make_image(folders.beside)
    subprocess.run(["sh", "-c", 'head -c 3000 "$1" > "$2"; kill -9 $$', "sh", ready, folders.file], check=False)
    assert folders.file.stat().st_size == 3000
    yield
    yield
    run_command("cp", ready, folders.file)
    yield


def writer_keeps_it_open(folders: ArrivalFolders) -> Iterator[None]:
    with folders.file.open("wb", buffering=0) as file:
        file.write(folders.image_bytes[:2000])
        yield
        file.write(folders.image_bytes[2000:])
        yield
        yield


def touch_then_write(folders: ArrivalFolders) -> Iterator[None]:
    folders.file.touch()
    yield
    yield
    folders.file.write_bytes(folders.image_bytes)
    yield


def o_tmpfile(folders: ArrivalFolders) -> Iterator[None]:
    try:
        fd = os.open(folders.inbox, os.O_TMPFILE | os.O_RDWR)
    except OSError:
        # This system does not have the command.
        yield from cp(folders)
        return
    try:
        os.write(fd, folders.image_bytes)
        yield
        # Python passes AT_SYMLINK_FOLLOW to linkat(2) only together with a directory descriptor.
        proc = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY)
        os.link(str(fd), folders.file, src_dir_fd=proc, follow_symlinks=True)
        os.close(proc)
    finally:
        os.close(fd)
    yield


def replaced_by_rename_before_it_stood_still(folders: ArrivalFolders) -> Iterator[None]:
    folders.file.write_bytes(make_image("png", seed=folders.seed))
    os.replace(folders.make_image(folders.beside), folders.file)
    yield


def half_replaced_by_rename(folders: ArrivalFolders) -> Iterator[None]:
    folders.file.write_bytes(folders.image_bytes[:3000])
    yield
    os.replace(folders.make_image(folders.beside), folders.file)
    yield


def rename_exchange(folders: ArrivalFolders) -> Iterator[None]:
    folders.file.write_bytes(folders.image_bytes[:3000])
    yield
    libc = ctypes.CDLL(None, use_errno=True)
    ready = os.fsencode(folders.make_image(folders.beside))
    assert libc.renameat2(-100, ready, -100, os.fsencode(folders.file), 2) == 0, os.strerror(ctypes.get_errno())
    yield


def name_that_is_not_utf_8(folders: ArrivalFolders) -> Iterator[None]:
    with open(os.fsencode(folders.inbox) + b"/caf\xe9.jpg", "wb") as file:
        file.write(folders.image_bytes)
    yield


def mv_of_a_tree(folders: ArrivalFolders) -> Iterator[None]:
    run_command("mv", folders.make_tree(folders.beside), folders.inbox)
    yield


def cp_r(folders: ArrivalFolders) -> Iterator[None]:
    run_command("cp", "-r", folders.make_tree(folders.elsewhere), folders.inbox)
    yield


def tar_x(folders: ArrivalFolders) -> Iterator[None]:
    archive = folders.elsewhere / "tree.tar"
    run_command("tar", "-cf", archive, "-C", folders.make_tree(folders.elsewhere).parent, "tree")
    run_command("tar", "-xf", archive, "-C", folders.inbox)
    yield


def a_moved_tree_whose_file_is_not_whole_yet(folders: ArrivalFolders) -> Iterator[None]:
    (folders.beside / "late").mkdir()
    (folders.beside / "late" / "scan.jpg").write_bytes(folders.image_bytes[:3000])
    (folders.beside / "late").rename(folders.inbox / "late")
    yield
    with (folders.inbox / "late" / "scan.jpg").open("ab") as file:
        file.write(folders.image_bytes[3000:])
    yield


def full_size_at_once_then_filled(folders: ArrivalFolders) -> Iterator[None]:
    with folders.file.open("wb", buffering=0) as file:
        file.truncate(len(folders.image_bytes))
        yield
        file.write(folders.image_bytes[:4096])
        yield
        file.write(folders.image_bytes[4096:])
    yield


def full_size_at_once_then_filled_from_its_end(folders: ArrivalFolders) -> Iterator[None]:
    fd = os.open(folders.file, os.O_CREAT | os.O_RDWR)
    os.ftruncate(fd, len(folders.image_bytes))
    yield
    os.pwrite(fd, folders.image_bytes[4096:], 4096)
    yield
    os.pwrite(fd, folders.image_bytes[:4096], 0)
    os.close(fd)
    yield


def picture_and_film_of_full_size_at_once(folders: ArrivalFolders) -> Iterator[None]:
    """A program copies a phone's image with a film appended, and sets the file's size beforehand."""
    film = os.urandom(100_000)
    with folders.file.open("wb", buffering=0) as file:
        file.truncate(len(folders.image_bytes + film))
        file.write(folders.image_bytes)
        yield
        file.write(film)
    yield


def preallocated_then_filled(folders: ArrivalFolders) -> Iterator[None]:
    fd = os.open(folders.file, os.O_CREAT | os.O_RDWR)
    os.posix_fallocate(fd, 0, len(folders.image_bytes) + 20_000)
    yield
    os.pwrite(fd, folders.image_bytes[:5000], 0)
    yield
    os.pwrite(fd, folders.image_bytes[5000:], 5000)
    yield
    os.ftruncate(fd, len(folders.image_bytes))
    os.close(fd)
    yield


def zeros_that_fill_up_under_one_time(folders: ArrivalFolders) -> Iterator[None]:
    fd = os.open(folders.file, os.O_CREAT | os.O_RDWR)
    for start, end in ((0, 0), (0, 3000), (3000, len(folders.image_bytes))):
        if not end:
            os.pwrite(fd, bytes(len(folders.image_bytes)), 0)
        os.pwrite(fd, folders.image_bytes[start:end], start)
        os.utime(fd, (1e9, 1e9))
        yield
    os.close(fd)


def time_in_the_future(folders: ArrivalFolders) -> Iterator[None]:
    folders.file.write_bytes(folders.image_bytes[:3000])
    os.utime(folders.file, (time.time() + 1e8, time.time() + 1e8))
    yield
    folders.file.write_bytes(folders.image_bytes)
    os.utime(folders.file, (time.time() + 1e8, time.time() + 1e8))
    yield


def written_through_mmap(folders: ArrivalFolders) -> Iterator[None]:
    with folders.file.open("w+b") as file:
        file.truncate(len(folders.image_bytes))
        with mmap.mmap(file.fileno(), len(folders.image_bytes)) as memory:
            yield
            memory[:4096] = folders.image_bytes[:4096]
            yield
            memory[4096:] = folders.image_bytes[4096:]
    yield


def written_twice_in_place(folders: ArrivalFolders) -> Iterator[None]:
    folders.file.write_bytes(folders.image_bytes + bytes(5000))
    folders.file.write_bytes(folders.image_bytes)
    yield


def moved_on_within_the_inbox(folders: ArrivalFolders) -> Iterator[None]:
    folders.file.write_bytes(folders.image_bytes[:3000])
    yield
    (folders.inbox / "sorted").mkdir()
    folders.file.rename(folders.inbox / "sorted" / "scan.jpg")
    yield
    (folders.inbox / "sorted" / "scan.jpg").write_bytes(folders.image_bytes)
    yield


def touched_again_and_again(folders: ArrivalFolders) -> Iterator[None]:
    folders.file.write_bytes(folders.image_bytes)
    for moment in (1e9, 1.1e9, 1.2e9):
        yield
        os.utime(folders.file, (moment, moment))
    yield


def gone_before_it_was_whole(folders: ArrivalFolders) -> Iterator[None]:
    folders.file.write_bytes(folders.image_bytes[:3000])
    yield
    folders.file.unlink()
    yield


def never_given_its_name(folders: ArrivalFolders) -> Iterator[None]:
    for name in (".scan.jpg", "scan.jpg.part", "scan.jpg.crdownload", "~$scan.jpg", "scan.jpg.filepart", "scan.jpg~"):
        (folders.inbox / name).write_bytes(folders.image_bytes)
    yield


def a_pipe(folders: ArrivalFolders) -> Iterator[None]:
    os.mkfifo(folders.file)
    yield


@dataclass(frozen=True)
class ArrivalCase:
    method: ArrivalMethod
    #: Number of jobs.
    accepted: int = 1
    #: Number of jobs that are `rejected` with not_an_image.
    refused: int = 0


_TREE = len(BASIC_KINDS)
ARRIVALS = (
    ArrivalCase(cp),
    ArrivalCase(cp_with_its_time),
    ArrivalCase(mv),
    ArrivalCase(mv_from_another_file_system),
    ArrivalCase(ln),
    ArrivalCase(ln_s, 0, 1),
    ArrivalCase(ln_s_to_nothing, 0, 1),
    ArrivalCase(part_and_rename),
    ArrivalCase(rsync),
    ArrivalCase(four_appends_with_pauses),
    ArrivalCase(writer_killed_half_way_then_rewritten),
    ArrivalCase(writer_keeps_it_open),
    ArrivalCase(touch_then_write),
    ArrivalCase(o_tmpfile),
    ArrivalCase(replaced_by_rename_before_it_stood_still),
    ArrivalCase(half_replaced_by_rename),
    ArrivalCase(rename_exchange),
    ArrivalCase(name_that_is_not_utf_8),
    ArrivalCase(mv_of_a_tree, _TREE),
    ArrivalCase(cp_r, _TREE),
    ArrivalCase(tar_x, _TREE),
    ArrivalCase(a_moved_tree_whose_file_is_not_whole_yet),
    ArrivalCase(full_size_at_once_then_filled),
    ArrivalCase(full_size_at_once_then_filled_from_its_end),
    ArrivalCase(preallocated_then_filled),
    ArrivalCase(picture_and_film_of_full_size_at_once),
    ArrivalCase(zeros_that_fill_up_under_one_time),
    ArrivalCase(time_in_the_future),
    ArrivalCase(written_through_mmap),
    ArrivalCase(written_twice_in_place),
    ArrivalCase(moved_on_within_the_inbox),
    ArrivalCase(touched_again_and_again),
    ArrivalCase(gone_before_it_was_whole, 0),
    ArrivalCase(never_given_its_name, 0),
    ArrivalCase(a_pipe, 0, 1),
)
ARRIVALS_FOLLOWING_LINKS = (
    ArrivalCase(cp),
    ArrivalCase(mv),
    ArrivalCase(ln_s),
    ArrivalCase(ln_s_to_nothing, 0),
    ArrivalCase(ln_s_of_what_grows),
    ArrivalCase(half_replaced_by_rename),
    ArrivalCase(mv_of_a_tree, _TREE),
)


class InboxHarness:
    """The watcher and intake of one rule, with a fake clock."""

    def __init__(self, context: StepContext, clock: FakeClock) -> None:
        self.rule: Rule = context.config.rules[0]
        self.clock, self.context, self.journal = clock, context, context.journal
        self._reports: queue.Queue[list[FileSeen] | ScanReport] = queue.Queue()
        self.watcher = Watcher(
            Inbox(
                rule=self.rule.name,
                path=self.rule.inbox,
                name_filter=NameFilter(self.rule.include, self.rule.exclude),
                recursive=True,
                follow_symlinks=self.rule.follow_symlinks,
                use_events={"native": True, "polling": False}[self.rule.observer],
                rescan_interval=600.0,
            ),
            [],
            lambda _rule, news: self._reports.put(news),
        )
        self.intake = Intake(self.context, self.rule, on_missing=self.watcher.forget_file)
        self.watcher.start()

    async def scan_and_judge(self, seconds: float) -> None:
        """Scan, let time pass, and validate the files that are due."""
        while not self._reports.empty():
            self._on_watcher_event(self._reports.get())
        # The first scan may have started earlier.
        for _ in range(2):
            self.watcher.rescan_after_mount_change()
            while not self._on_watcher_event(self._reports.get(timeout=TIMEOUT)):
                pass
        self.clock.advance(seconds)
        while await self.intake.process_due_files():
            pass

    def _on_watcher_event(self, news: list[FileSeen] | ScanReport) -> bool:
        if isinstance(news, ScanReport):
            assert news.unavailable is None
            return True
        self.intake.record_sightings(news)
        return False

    def close(self) -> None:
        self.watcher.stop()
        self.watcher.join(TIMEOUT)


@pytest.mark.parametrize("observer", ["native", "polling"])
@pytest.mark.parametrize(
    "rows", [ARRIVALS, ARRIVALS_FOLLOWING_LINKS], ids=["links are not followed", "links are followed"]
)
async def test_every_arrival_method_makes_exactly_one_job_of_the_whole_file(
    rows: tuple[ArrivalCase, ...], observer: str, harness: Harness
) -> None:
    harness.rule = {
        "settle": SETTLE,
        "settle_timeout": "1d",
        "follow_symlinks": rows is ARRIVALS_FOLLOWING_LINKS,
        "observer": observer,
    }
    with tempfile.TemporaryDirectory(dir=find_other_file_system(harness.root)) as elsewhere:
        case_folders = [make_arrival_folders(harness, Path(elsewhere), number, row) for number, row in enumerate(rows)]
        clock = FakeClock()
        async with open_step_context(harness.load_config(), clock) as context:
            inbox_harness = InboxHarness(context, clock)
            try:
                arrivals = [row.method(folders) for row, folders in zip(rows, case_folders, strict=True)]
                while arrivals:
                    arrivals = [arrival for arrival in arrivals if next(arrival, arrival) is None]
                    await inbox_harness.scan_and_judge(SETTLE)
                for _ in range(4):
                    await inbox_harness.scan_and_judge(LONG)
                jobs = inbox_harness.journal.jobs()
                assert inbox_harness.intake.settling_count == 0
            finally:
                inbox_harness.close()
        mismatches = {
            row.method.__name__: describe_mismatch(row, folders, jobs)
            for row, folders in zip(rows, case_folders, strict=True)
        }
    assert {arrival: what for arrival, what in mismatches.items() if what} == {}


def make_arrival_folders(harness: Harness, elsewhere: Path, number: int, row: ArrivalCase) -> ArrivalFolders:
    name = row.method.__name__
    folders = (harness.inbox / name, harness.root / "beside" / name, elsewhere / name)
    for folder in folders:
        folder.mkdir(parents=True)
    return ArrivalFolders(*folders, seed=number)


def find_other_file_system(root: Path) -> Path:
    """Return a folder on another file system, if this machine has one."""
    shm = Path("/dev/shm")
    return shm if shm.is_dir() and os.access(shm, os.W_OK) else root


def describe_mismatch(row: ArrivalCase, folders: ArrivalFolders, jobs: list[Job]) -> object:
    """Return how the outcome of a case differs from the required one, or an empty string."""
    own = [job for job in jobs if job.source.is_relative_to(folders.inbox)]
    queued = sorted((job.source, job.sha256) for job in own if job.state is State.QUEUED)
    refused = [job for job in own if job.problem and job.problem.code is ErrorCode.NOT_AN_IMAGE]
    existing = sorted(
        (path, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folders.inbox.rglob("*.jpg")
        if path.is_file() and not path.name.startswith((".", "~"))
    )
    expected = existing if row.accepted else []
    if (queued, len(refused), len(own)) == (expected, row.refused, row.accepted + row.refused):
        return None
    return [(job.relative, job.state, job.problem, job.sha256) for job in own], existing
