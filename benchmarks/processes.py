"""The daemon and the simulator, each a process of its own, and the folder in which they work."""

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

# Seconds until a benchmark gives up.
_TIMEOUT = 600.0
#: Let processes write bytecode, because an installed package has it.
ENVIRON = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


class BenchmarkError(Exception):
    """Raised when a run did not go as it should, so that its figures would be meaningless."""


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request as the simulator saw it."""

    #: One of create, query, download and other.
    operation: str
    #: Monotonic seconds of its first byte, the same clock in all processes of a machine (clock_gettime(2)).
    at: float
    status: int | None
    #: SHA-256 of its image.
    sha256: str | None


class SimulatorProcess:
    """``with SimulatorProcess(qps=None) as simulator``: after the block, ``requests`` is complete."""

    def __init__(self, **settings: object) -> None:
        """Take the settings of `picwish_watchd.simulator.Settings`; results are an echo by default."""
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
        output, _ = self._process.communicate(timeout=60)
        self.requests = [LoggedRequest(**each) for each in json.loads(output)]

    def rate_limited_requests(self) -> list[LoggedRequest]:
        """Return creates and queries, the requests that count against QPS."""
        return [request for request in self.requests if request.operation in ("create", "query")]

    def accepted_creates(self) -> dict[str, LoggedRequest]:
        """The accepted creates by the SHA-256 of their image. Raises `BenchmarkError` if an image was sent twice."""
        creates: dict[str, LoggedRequest] = {}
        for request in self.requests:
            if request.operation == "create" and request.status == 200:
                if request.sha256 is None or request.sha256 in creates:
                    raise BenchmarkError(f"image {request.sha256} was paid twice")
                creates[request.sha256] = request
        return creates


@dataclass(frozen=True, slots=True)
class ResourceUsage:
    """Resources that a process used."""

    seconds: float
    #: CPU seconds of all its threads, in user and kernel mode.
    cpu: float


@dataclass(frozen=True, slots=True)
class Workspace:
    """A folder with an inbox, an outbox, a journal and a configuration."""

    folder: Path

    @property
    def inbox(self) -> Path:
        """The folder for new images."""
        return self.folder / "inbox"

    @property
    def outbox(self) -> Path:
        """The folder in which results appear."""
        return self.folder / "outbox"

    def count_results(self) -> int:
        """Return the number of results in the outbox."""
        return sum(not name.startswith(".") for name in os.listdir(self.outbox)) if self.outbox.exists() else 0

    def load_finished_jobs(self) -> list[Job]:
        """Return all jobs, oldest first. Raises `BenchmarkError` unless every job is done."""
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
        """Write a configuration with one rule from inbox to outbox; ``top`` has top-level keys."""
        config = {
            "api": {"base_url": url, **api},
            "journal": "state/journal.db",
            **top,
            "rules": [{"name": "bench", "inbox": "inbox", "outbox": "outbox", **rule}],
        }
        # JSON is valid YAML.
        self.config_file.write_text(json.dumps(config))

    def start_daemon(
        self, *arguments: str, environ: Mapping[str, str] | None = None, module: str = "picwish_watchd"
    ) -> "subprocess.Popen[bytes]":
        """Start ``python -m picwish_watchd run`` with its log in daemon.log and its output in daemon.out."""
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
        """Run a daemon; the block begins once it is ready. Raises `BenchmarkError` if it does not end well."""
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
        """Return the output of the last daemon."""
        return self._output_file.read_text()

    def run_once(self) -> "ResourceUsage":
        """Run ``run --once`` from start to end and return what it used. Raises `BenchmarkError` if it fails."""
        began, before = time.monotonic(), os.times()
        code = self.start_daemon("--once").wait(_TIMEOUT)
        after = os.times()
        if code != 0:
            raise BenchmarkError(f"run --once ended with {code}; see {self._log_file}")
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        return ResourceUsage(time.monotonic() - began, cpu)

    @property
    def config_file(self) -> Path:
        """The path of the configuration."""
        return self.folder / "picwish-watchd.yaml"

    @property
    def _log_file(self) -> Path:
        return self.folder / "daemon.log"

    @property
    def _output_file(self) -> Path:
        return self.folder / "daemon.out"


@contextmanager
def temporary_workspace() -> Iterator[Workspace]:
    """Yield a new workspace in $TMPDIR. It is removed at the end, unless an error occurred."""
    folder = Path(tempfile.mkdtemp(prefix="picwish-bench-"))
    (folder / "inbox").mkdir()
    yield Workspace(folder)
    shutil.rmtree(folder)


def wait_until(condition: Callable[[], bool], process: "subprocess.Popen[bytes]", *, every: float = 0.002) -> None:
    """Check every ``every`` seconds. Raises `BenchmarkError` after 10 minutes, or when the process has ended."""
    until = time.monotonic() + _TIMEOUT
    while not condition():
        if time.monotonic() > until or process.poll() is not None:
            raise BenchmarkError("the daemon did not reach the awaited state")
        time.sleep(every)


def peak_memory(pid: int) -> float:
    """Return the peak resident memory of a process in MB (proc_pid_status(5): VmHWM, in KiB)."""
    return _read_memory(pid, "VmHWM")


def resident_memory(pid: int) -> float:
    """Return the resident memory of a process in MB (proc_pid_status(5): VmRSS, in KiB)."""
    return _read_memory(pid, "VmRSS")


def _read_memory(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise BenchmarkError(f"there is no {name} of {pid}")


def process_cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of all threads of a process (proc_pid_stat(5): utime and stime, in ticks)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def to_monotonic(moment: float) -> float:
    """Convert Unix seconds to monotonic seconds; this is valid as long as nobody sets the clock."""
    return moment - time.time() + time.monotonic()
