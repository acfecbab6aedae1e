"""A whole house for tests: real folders, a real journal, the daemon, and the simulator behind real HTTP."""

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
    """Folders below ``root``, and what was dropped into the inbox."""

    root: Path
    simulator: Simulator
    #: keys of the rule beyond the usual
    rule: dict[str, Any] = field(default_factory=dict)
    api: dict[str, Any] = field(default_factory=dict)
    top_level: dict[str, Any] = field(default_factory=dict)
    more_rules: list[dict[str, Any]] = field(default_factory=list)
    #: source -> sha256, of what must not be lost
    dropped: dict[Path, str] = field(default_factory=dict)
    #: sha256 that may be charged twice: a person said retry
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
        """Writes the configuration file as it should be now."""
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
        """Puts a file into an inbox, whole at once."""
        path = self.root / inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = make_image(kind, seed=seed) if data is None else data
        part = self.root / "dropping"
        part.write_bytes(data)
        part.rename(path)
        self.dropped[path] = hashlib.sha256(data).hexdigest()
        return path

    async def run_once(self) -> int:
        """`run --once`, in this process; the exit code."""
        async with asyncio.timeout(60):
            return await Daemon(self.load_config(), KEY).run(once=True)

    def jobs(self, *states: State) -> list[Job]:
        reader = JournalReader.open(self.journal)
        try:
            return reader.jobs(states=states, oldest_first=True)
        finally:
            reader.close()

    def job(self, name: str) -> Job:
        """The newest job of a file."""
        found = [job for job in self.jobs() if str(job.relative) == name]
        assert found, f"no job for {name}"
        return found[-1]

    def state_history(self, name: str) -> list[str]:
        reader = JournalReader.open(self.journal)
        try:
            return [event.state for event in reader.history(self.job(name).id)]
        finally:
            reader.close()

    def daemon_report(self) -> str:
        """What the daemon said of itself, as JSON; empty without a journal."""
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
        return sum(seen.operation == "create" for seen in self.simulator.requests)

    def check_laws(self) -> None:
        """Never paid twice, never lost: what must hold after every test, whatever happened in it."""
        paid = Counter(charge.sha256 for charge in self.simulator.ledger)
        assert {sha for sha, times in paid.items() if times > 1} <= self.may_be_paid_twice, "paid twice"
        assert not any(seen.has_key for seen in self.simulator.requests if seen.operation == "download")
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
    """Ends what a test has left running, as one does that failed."""
    while _running_processes:
        child = _running_processes.pop().child
        if child.poll() is None:
            child.kill()
            child.wait()


@dataclass
class DaemonProcess:
    """The daemon as a process of its own."""

    harness: Harness
    arguments: tuple[str, ...] = ()
    #: acts, see `tests.support.crash_points`
    crash_after: int | None = None
    environ: dict[str, str] = field(default_factory=dict)
    #: the command that it is run by
    prefix: tuple[str, ...] = ()
    #: made from nothing, as a user's is; else a fork, see `tests.support.fork_server`
    fresh: bool = False

    def start(self) -> "DaemonProcess":
        file = self.harness.write_config()
        module, *death = (
            [PROGRAM] if self.crash_after is None else ["tests.support.crash_points", str(self.crash_after)]
        )
        words = [*death, "run", "-c", str(file), *self.arguments]
        environ = {**os.environ, "PICWISH_API_KEY": KEY, **self.environ}
        self.errors = self.harness.root / "stderr.log"
        with self.errors.open("ab") as sink, open(os.devnull, "wb") as nowhere:
            if self.fresh or self.prefix:
                command = [*self.prefix, sys.executable, "-m", module, *words]
                self.child: subprocess.Popen[bytes] | ForkedProcess = subprocess.Popen(
                    command, stdout=nowhere, stderr=sink, env=environ
                )
            else:
                self.child = start_fork(
                    words, module=module, environ=environ, out=nowhere.fileno(), errors=sink.fileno()
                )
        _running_processes.append(self)
        return self

    async def wait_for_exit(self, seconds: float = 30) -> int:
        """Waits for its end and answers its exit code."""
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
        """The events that it logged, of all runs."""
        return [json.loads(line) for line in self.errors.read_text().splitlines() if line.startswith("{")]


async def wait_until(condition: Any, seconds: float = 30) -> None:
    """Waits until ``condition()`` holds; fails after ``seconds``."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)
