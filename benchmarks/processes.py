"""The daemon and the simulator, each a process of its own, and the folder that they work in."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from picwish_watchd.job import Job, State
from picwish_watchd.journal.reader import JournalReader

# seconds until a benchmark gives up
_TIMEOUT = 600.0
#: An installed package has its bytecode: no process is to compile it anew.
ENVIRON = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


class BenchmarkError(Exception):
    """A run that did not go as it should measures nothing."""


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request as the simulator saw it."""

    #: create, query, download or other
    operation: str
    #: monotonic seconds, the same in all processes of a machine (clock_gettime(2)), at its first byte
    at: float
    status: int | None
    #: of the picture that it is about
    sha256: str | None


class SimulatorProcess:
    """``with SimulatorProcess(qps=None) as simulator``: after the block, ``requests`` is complete."""

    def __init__(self, **settings: object) -> None:
        """``settings``: as of `picwish_watchd.simulator.Settings`; echo mode if not told otherwise."""
        self._settings = {"enhance": "echo", **settings}
        self.requests: list[LoggedRequest] = []
        self.url = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.simulator_process", json.dumps(self._settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        return self

    def __exit__(self, *_error: object) -> None:
        told, _ = self._process.communicate(timeout=60)
        self.requests = [LoggedRequest(**each) for each in json.loads(told)]

    def rate_limited_requests(self) -> list[LoggedRequest]:
        """Creates and queries: what counts against QPS."""
        return [request for request in self.requests if request.operation in ("create", "query")]

    def accepted_creates(self) -> dict[str, LoggedRequest]:
        """The creates that were taken, by the hash of their picture. Raises `BenchmarkError` if one was sent twice."""
        found: dict[str, LoggedRequest] = {}
        for request in self.requests:
            if request.operation == "create" and request.status == 200:
                if request.sha256 is None or request.sha256 in found:
                    raise BenchmarkError(f"picture {request.sha256} was paid twice")
                found[request.sha256] = request
        return found


@dataclass(frozen=True, slots=True)
class ResourceUsage:
    """What a process took."""

    seconds: float
    #: seconds of all its threads, in user and kernel
    cpu: float


@dataclass(frozen=True, slots=True)
class Workspace:
    """A folder with an inbox, an outbox, a journal and a configuration."""

    folder: Path

    @property
    def inbox(self) -> Path:
        """Where pictures are dropped."""
        return self.folder / "inbox"

    @property
    def outbox(self) -> Path:
        """Where results appear."""
        return self.folder / "outbox"

    def count_results(self) -> int:
        """Number of results that stand in the outbox."""
        return sum(not name.startswith(".") for name in os.listdir(self.outbox)) if self.outbox.exists() else 0

    def load_finished_jobs(self) -> list[Job]:
        """All jobs, oldest first. Raises `BenchmarkError` unless every one is done."""
        reader = JournalReader.open(self.folder / "state" / "journal.db")
        try:
            jobs = reader.jobs(oldest_first=True)
        finally:
            reader.close()
        bad = [job for job in jobs if job.state is not State.DONE]
        if bad:
            raise BenchmarkError(f"{len(bad)} of {len(jobs)} jobs did not reach done, the first is {bad[0]}")
        return jobs

    def configure(self, url: str, api: Mapping[str, object], rule: Mapping[str, object], **top: object) -> None:
        """Writes the configuration: one rule from inbox to outbox; ``top`` are keys that stand at the top."""
        config = {
            "api": {"base_url": url, **api},
            "journal": "state/journal.db",
            **top,
            "rules": [{"name": "bench", "inbox": "inbox", "outbox": "outbox", **rule}],
        }
        # JSON is YAML
        self.config_file.write_text(json.dumps(config))

    def start_daemon(
        self, *arguments: str, environ: Mapping[str, str] | None = None, module: str = "picwish_watchd"
    ) -> "subprocess.Popen[bytes]":
        """Starts ``python -m picwish_watchd run``; its log goes to daemon.log, what it prints to daemon.out."""
        command = [sys.executable, "-m", module, "run", *arguments, "-c", str(self.config_file)]
        with self._log_file.open("wb") as log, self._output_file.open("wb") as out:
            return subprocess.Popen(
                command,
                stdout=out,
                stderr=log,
                env={**ENVIRON, "PICWISH_API_KEY": "benchmark", **(environ or {})},
            )

    @contextmanager
    def running_daemon(self, module: str = "picwish_watchd") -> Iterator["subprocess.Popen[bytes]"]:
        """A daemon that is ready. Raises `BenchmarkError` if it does not end well."""
        process = self.start_daemon(module=module)
        try:
            wait_until(lambda: b"daemon.ready" in self._log_file.read_bytes(), process)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(60)
        if code != 0:
            raise BenchmarkError(f"the daemon ended with {code}; see {self._log_file}")

    def read_output(self) -> str:
        """What the last daemon printed."""
        return self._output_file.read_text()

    def run_once(self) -> "ResourceUsage":
        """``run --once``, from the process's start to its end. Raises `BenchmarkError` if it fails."""
        began, before = time.monotonic(), os.times()
        code = self.start_daemon("--once").wait(_TIMEOUT)
        after = os.times()
        if code != 0:
            raise BenchmarkError(f"run --once ended with {code}; see {self._log_file}")
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        return ResourceUsage(time.monotonic() - began, cpu)

    @property
    def config_file(self) -> Path:
        """The configuration."""
        return self.folder / "picwish-watchd.yaml"

    @property
    def _log_file(self) -> Path:
        return self.folder / "daemon.log"

    @property
    def _output_file(self) -> Path:
        return self.folder / "daemon.out"


@contextmanager
def temporary_workspace() -> Iterator[Workspace]:
    """A fresh place in $TMPDIR, removed at the end; it stays where something went wrong."""
    folder = Path(tempfile.mkdtemp(prefix="picwish-bench-"))
    (folder / "inbox").mkdir()
    yield Workspace(folder)
    shutil.rmtree(folder)


def wait_until(condition: Callable[[], bool], process: "subprocess.Popen[bytes]", *, every: float = 0.002) -> None:
    """Looks ``every`` so many seconds. Raises `BenchmarkError` after 10 minutes, or when the process has ended."""
    until = time.monotonic() + _TIMEOUT
    while not condition():
        if time.monotonic() > until or process.poll() is not None:
            raise BenchmarkError("the daemon did not do what was waited for")
        time.sleep(every)


def peak_memory(pid: int) -> float:
    """The largest resident set that a process ever had, in MB (proc_pid_status(5): VmHWM, in KiB)."""
    return _read_memory(pid, "VmHWM")


def resident_memory(pid: int) -> float:
    """The resident set of a process now, in MB (proc_pid_status(5): VmRSS, in KiB)."""
    return _read_memory(pid, "VmRSS")


def _read_memory(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise BenchmarkError(f"there is no {name} of {pid}")


def process_cpu_seconds(pid: int) -> float:
    """Seconds of CPU that a process has used in all its threads (proc_pid_stat(5): utime and stime, in ticks)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def to_monotonic(moment: float) -> float:
    """Unix seconds as monotonic seconds; good for as long as nobody sets the clock."""
    return moment - time.time() + time.monotonic()
