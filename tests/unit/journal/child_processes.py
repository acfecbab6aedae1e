"""Functions for child processes: ``python -m tests.unit.journal.child_processes NAME ARGUMENT...``.

A child that holds a lock prints ``held`` and continues when its standard input ends.
"""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from picwish_watchd.clock import Clock
from picwish_watchd.errors import WatchdError
from picwish_watchd.job import State
from picwish_watchd.journal import integrity, schema, writer
from picwish_watchd.journal.locks import DaemonLock, WriteLock
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.journal.vacuum import vacuum_journal
from picwish_watchd.journal.writer import ChargeState, Journal
from tests.support import fork_server
from tests.unit.journal.job_factory import add_job, get_job, new_job

ROOT = Path(__file__).parents[3]


def run_child(*arguments: str | Path, before: tuple[str, ...] = ()) -> str:
    """Run a child to its end and return its standard output."""
    strings = list(map(str, arguments))
    if before:
        command = [*before, sys.executable, "-m", __name__, *strings]
        process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    else:
        process = fork_server.run_fork(*strings, module=__name__, timeout=60)
    assert process.returncode == 0, process.stderr
    return process.stdout


@contextmanager
def child_holding(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """Run a child that holds a lock during the block."""
    command = [sys.executable, "-m", __name__, *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        yield child


def hold_daemon_lock(path: str) -> None:
    DaemonLock(Path(path)).acquire()
    _hold_until_eof()


def hold_write_lock(path: str) -> None:
    with WriteLock(Path(path)).hold():
        _hold_until_eof()


def hold_transaction(path: str) -> None:
    """Lock the file as a program does that does not use our lock files."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    _hold_until_eof()
    connection.close()


def try_daemon_lock(path: str) -> None:
    try:
        DaemonLock(Path(path)).acquire()
    except WatchdError as error:
        print(error.exit_code, error.message)


def add_jobs(path: str, rule: str, number: str) -> None:
    """Add jobs one by one, each in its own transaction."""
    journal = Journal.open_for_writing(Path(path), Clock())
    for each in range(int(number)):
        add_job(journal, f"{each}.jpg", rule)
    journal.close()


def read_as_nobody(path: str) -> None:
    """Print what a reader with another user's rights gets."""
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    print(_count_jobs(Path(path)))


def read(path: str) -> None:
    print(_count_jobs(Path(path)))


def write(path: str) -> None:
    """Print what a writer gets: the number of jobs, or the exit code and message of the error."""
    try:
        journal = Journal.open_for_writing(Path(path), Clock())
        add_job(journal)
    except WatchdError as error:
        print(error.exit_code, error.message)
    else:
        print(len(journal.jobs()), "jobs")


def vacuum_with_little_room(path: str) -> None:
    """Print what `vacuum` says on a disk that has room for the journal, but not for two copies more."""
    journal = Journal.open_for_writing(Path(path), Clock())
    journal.add_jobs([new_job(f"{number}.jpg") for number in range(1000)])
    journal.close()
    try:
        vacuum_journal(Path(path), Clock())
    except WatchdError as error:
        print(error.exit_code, error.message)
    print(len(JournalReader.open(Path(path)).jobs()), "jobs")


def fill_and_free(path: str) -> None:
    """Fill the disk under an open journal, then free it again."""
    journal = Journal.open_for_writing(Path(path), Clock())
    job = journal.transition(add_job(journal), State.SUBMITTING, "sending", reserve=5)
    ballast = _fill_disk(Path(path).parent)
    for attempt in count():
        try:
            journal.add_jobs([new_job(f"{attempt}-{number}.jpg") for number in range(500)])
        except WatchdError as error:
            print(error.exit_code, error.message)
            break
    print(len(journal.jobs()) % 500, get_job(journal, job.id).state)
    ballast.unlink()
    journal.transition(get_job(journal, job.id), State.PENDING, "took it")
    journal.check_integrity()
    print(get_job(journal, job.id).state, journal.credits_since(0))
    journal.close()


def upgrade_on_a_full_disk(path: str) -> None:
    """Try a schema migration on a full disk, then open the journal with the older program."""
    Journal.open_for_writing(Path(path), Clock()).close()
    ballast = _fill_disk(Path(path).parent)
    steps = schema.MIGRATIONS
    _set_schema_version((*steps, "ALTER TABLE job ADD COLUMN colour TEXT;\n"))
    write(path)
    _set_schema_version(steps)
    ballast.unlink()
    write(path)


def _set_schema_version(steps: tuple[str, ...]) -> None:
    vars(schema)["MIGRATIONS"] = steps
    for module in (schema, integrity, writer):
        vars(module)["VERSION"] = len(steps)


def begin_on_a_full_disk(path: str) -> None:
    """Create a new journal on a full disk, then again once there is room."""
    Path(path).parent.mkdir()
    ballast = _fill_disk(Path(path).parent)
    write(path)
    print(Path(path).exists())
    ballast.unlink()
    write(path)


def crash_in_moves(base: str) -> None:
    """Die at each statement of two transitions, each time in a folder of its own, until one run survives."""

    def act(path: Path) -> None:
        journal = Journal.open_for_writing(path, Clock())
        job = add_job(journal)
        arm_crash_point()
        job = journal.transition(job, State.SUBMITTING, "sending", reserve=5)
        journal.transition(job, State.HELD, "in doubt", charge=ChargeState.DOUBTFUL)

    _crash_everywhere(Path(base), act)


def crash_in_creation(base: str) -> None:
    """Die at each statement and each change of the folder that creates a journal and its first jobs."""

    def act(path: Path) -> None:
        arm_crash_point()
        Journal.open_for_writing(path, Clock()).add_jobs([new_job(name) for name in "abc"])

    _crash_everywhere(Path(base), act)


class _CrashPoint:
    """Kill this process at the n-th statement or change of a folder after it was armed."""

    remaining = 0
    armed = False

    def step(self) -> None:
        self.remaining -= self.armed
        if self.armed and self.remaining == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(self, event: str, _arguments: tuple[Any, ...]) -> None:
        if event in {"os.rename", "os.mkdir", "os.remove", "open", "fcntl.flock"}:
            self.step()

    def connect(self, *arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = _CONNECT(*arguments, **options)
        connection.set_trace_callback(lambda _statement: self.step())
        return connection


_CONNECT = sqlite3.connect
_CRASH_POINT = _CrashPoint()


def arm_crash_point() -> None:
    """Allow the process to die from here on."""
    _CRASH_POINT.armed = True


def _crash_everywhere(base: Path, act: Callable[[Path], None]) -> None:
    sys.addaudithook(_CRASH_POINT.audit)
    sqlite3.connect = _CRASH_POINT.connect  # type: ignore[assignment]
    for step in count(1):
        folder = base / f"{step:03}"
        folder.mkdir()
        child = os.fork()
        if child == 0:
            _CRASH_POINT.remaining = step
            act(folder / "state" / "journal.db")
            _CRASH_POINT.armed = False
            os._exit(0)
        exit_code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if exit_code != -signal.SIGKILL:
            sys.exit(exit_code)


def _count_jobs(path: Path) -> str:
    try:
        reader = JournalReader.open(path)
    except WatchdError as error:
        return f"{error.exit_code} {error.message}"
    try:
        return f"{len(reader.jobs())} jobs"
    finally:
        reader.close()


def _fill_disk(folder: Path) -> Path:
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 1024)
        except OSError:
            return ballast


def _hold_until_eof() -> None:
    print("held", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    globals()[name](*arguments)
