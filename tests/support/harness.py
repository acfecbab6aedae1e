"""The test harness: real folders, a real journal, the daemon, and the simulator over real HTTP."""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from picwish_watchd.config.loader import load_config
from picwish_watchd.config.model import Config
from picwish_watchd.daemon.daemon import Daemon
from picwish_watchd.job import Job, State
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.simulator import Settings, Simulator
from tests.support.fork_server import PROGRAM, ForkedProcess, start_fork
from tests.support.sample_images import make_image

KEY = "test-key-0123456789"
FAST_SETTINGS = Settings(qps=None, processing=(0.05, 0.2), enlarge=2.0)


@dataclass
class Harness:
    """Folders below ``root``, the configuration, and a record of what was dropped into the inboxes."""

    root: Path
    simulator: Simulator
    #: Keys of the rule "scans" in addition to name and inbox.
    rule: dict[str, Any] = field(default_factory=dict)
    api: dict[str, Any] = field(default_factory=dict)
    top_level: dict[str, Any] = field(default_factory=dict)
    more_rules: list[dict[str, Any]] = field(default_factory=list)
    #: Source -> SHA-256 of files that must not be lost.
    dropped: dict[Path, str] = field(default_factory=dict)
    #: SHA-256 of images that may be charged twice, because a user asked for a retry.
    may_be_paid_twice: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.inbox.mkdir()

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    @property
    def outbox(self) -> Path:
        return self.root / "outbox"

    @property
    def journal(self) -> Path:
        return self.root / "state" / "journal.db"

    def write_config(self) -> Path:
        """Write the configuration file from the current attributes and return its path."""
        text = {
            "api": {"base_url": self.simulator.url, "qps": 500, **self.api},
            "journal": "state/journal.db",
            "retry_backoff": "50ms",
            **self.top_level,
            "defaults": {"outbox": "outbox", "settle": 0},
            "rules": [{"name": "scans", "inbox": "inbox", **self.rule}, *self.more_rules],
        }
        file = self.root / "watchd.yaml"
        file.write_text(yaml.safe_dump(text, allow_unicode=True, sort_keys=False))
        return file

    def load_config(self) -> Config:
        return load_config(self.write_config(), {})

    def drop_file(
        self, name: str, data: bytes | None = None, *, kind: str = "jpeg", seed: int = 0, inbox: str = "inbox"
    ) -> Path:
        """Put a complete file into an inbox in one step and return its path."""
        path = self.root / inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = make_image(kind, seed=seed) if data is None else data
        part = self.root / "dropping"
        part.write_bytes(data)
        part.rename(path)
        self.dropped[path] = hashlib.sha256(data).hexdigest()
        return path

    async def run_once(self) -> int:
        """Run the daemon with `run --once` in this process and return the exit code."""
        async with asyncio.timeout(60):
            return await Daemon(self.load_config(), KEY).run(once=True)

    def jobs(self, *states: State) -> list[Job]:
        reader = JournalReader.open(self.journal)
        try:
            return reader.jobs(states=states, oldest_first=True)
        finally:
            reader.close()

    def job(self, name: str) -> Job:
        """Return the newest job of a file."""
        jobs = [job for job in self.jobs() if str(job.relative) == name]
        assert jobs, f"no job for {name}"
        return jobs[-1]

    def state_history(self, name: str) -> list[str]:
        reader = JournalReader.open(self.journal)
        try:
            return [event.state for event in reader.history(self.job(name).id)]
        finally:
            reader.close()

    def daemon_report(self) -> str:
        """Return the daemon's status report as JSON text; empty without a journal."""
        if not self.journal.exists():
            return ""
        reader = JournalReader.open(self.journal)
        try:
            return reader.daemon_report() or ""
        finally:
            reader.close()

    def results(self) -> set[str]:
        return {str(p.relative_to(self.outbox)) for p in self.outbox.rglob("*") if p.is_file()}

    def count_creates(self) -> int:
        return sum(request.operation == "create" for request in self.simulator.requests)

    def check_laws(self) -> None:
        """Assert the laws that hold after every test: nothing paid twice, nothing lost, every result complete."""
        paid = Counter(charge.sha256 for charge in self.simulator.ledger)
        assert {sha for sha, times in paid.items() if times > 1} <= self.may_be_paid_twice, "paid twice"
        assert not any(request.has_key for request in self.simulator.requests if request.operation == "download")
        if not self.journal.exists():
            return
        reader = JournalReader.open(self.journal)
        try:
            reader.check_integrity()
            jobs = reader.jobs()
        finally:
            reader.close()
        assert sum(job.credits for job in jobs) <= self.simulator.credits_used
        for job in jobs:
            assert job.problem is not None or job.state not in (State.REJECTED, State.FAILED, State.HELD)
            if job.state is State.DONE and job.output is not None and job.result is not None and job.output.exists():
                assert hashlib.sha256(job.output.read_bytes()).hexdigest() == job.result.sha256
        self._check_folders()

    def _check_folders(self) -> None:
        everywhere = [p for p in self.root.rglob("*") if p.is_file() and not p.is_symlink()]
        hashes = Counter(hashlib.sha256(p.read_bytes()).hexdigest() for p in everywhere)
        deleting = self.rule.get("on_success") == "delete"
        for source, sha in self.dropped.items():
            assert hashes[sha] >= 1 or deleting, f"{source} is lost"
        for path in self.outbox.rglob("*"):
            if path.is_file() and path.suffix != ".json" and not path.name.startswith("."):
                with Image.open(path) as image:
                    image.load()


_running_processes: "list[DaemonProcess]" = []


def kill_leftover_processes() -> None:
    """Kill processes that a failed test has left running."""
    while _running_processes:
        child = _running_processes.pop().child
        if child.poll() is None:
            child.kill()
            child.wait()


@dataclass
class DaemonProcess:
    """The daemon in a process of its own."""

    harness: Harness
    arguments: tuple[str, ...] = ()
    #: Die after this many durable acts; see `tests.support.crash_points`.
    crash_after: int | None = None
    environ: dict[str, str] = field(default_factory=dict)
    #: A command that runs the program, such as strace and its options.
    prefix: tuple[str, ...] = ()
    #: Start a new interpreter, as a user does, in place of a fork (`tests.support.fork_server`).
    fresh: bool = False

    def start(self) -> "DaemonProcess":
        file = self.harness.write_config()
        module, *crash_arguments = (
            [PROGRAM] if self.crash_after is None else ["tests.support.crash_points", str(self.crash_after)]
        )
        arguments = [*crash_arguments, "run", "-c", str(file), *self.arguments]
        environ = {**os.environ, "PICWISH_API_KEY": KEY, **self.environ}
        self.errors = self.harness.root / "stderr.log"
        with self.errors.open("ab") as sink, open(os.devnull, "wb") as nowhere:
            if self.fresh or self.prefix:
                command = [*self.prefix, sys.executable, "-m", module, *arguments]
                self.child: subprocess.Popen[bytes] | ForkedProcess = subprocess.Popen(
                    command, stdout=nowhere, stderr=sink, env=environ
                )
            else:
                self.child = start_fork(
                    arguments, module=module, environ=environ, out=nowhere.fileno(), errors=sink.fileno()
                )
        _running_processes.append(self)
        return self

    async def wait_for_exit(self, seconds: float = 30) -> int:
        """Wait for the end of the process, kill it after ``seconds``, and return its exit code."""
        try:
            async with asyncio.timeout(seconds):
                while self.child.poll() is None:
                    await asyncio.sleep(0.02)
        finally:
            self.child.kill()
            code = self.child.wait()
        return code

    async def stop(self, number: int = signal.SIGTERM) -> int:
        self.child.send_signal(number)
        return await self.wait_for_exit()

    def logged_events(self) -> list[dict[str, Any]]:
        """Return the events logged by all runs of this harness."""
        return [json.loads(line) for line in self.errors.read_text().splitlines() if line.startswith("{")]


async def wait_until(condition: Any, seconds: float = 30) -> None:
    """Wait until ``condition()`` is true; fail after ``seconds``."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)
