"""Start processes as forks of one process that has imported the program and done nothing else.

    python -m tests.support.fork_server FD

FD is the socket that `start_fork` sends requests to; the server ends with the process that started it.

Forking a process with one thread and no open files gives a process of its own at a tenth of the cost: it has its own
PID, environment, folder, files and memory, and any signal can kill it. It does not test that the program can be
imported, nor in which order: tests with ``fresh`` processes do.
"""

import asyncio
import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import coverage

from picwish_watchd.cli.arguments import COMMANDS
from picwish_watchd.picwish import PicwishClient

_ROOT = Path(__file__).parents[2]
PROGRAM = "picwish_watchd"
# Size in bytes of a number that the server sends: a PID or an exit code.
_NUMBER_SIZE = 4


@dataclass(frozen=True)
class ForkRequest:
    module: str
    arguments: list[str]
    environ: dict[str, str]
    folder: str


class ForkedProcess:
    """A forked process, with the part of the interface of `subprocess.Popen` that tests need."""

    def __init__(self, status_pipe: int) -> None:
        # The pipe from the server: the PID at the start, the exit code at the end.
        self._status_pipe = status_pipe
        self.pid = self._read_number(None)
        self.returncode: int | None = None

    def _read_number(self, timeout: float | None) -> int:
        if not select.select([self._status_pipe], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("fork", timeout or 0)
        return int.from_bytes(os.read(self._status_pipe, _NUMBER_SIZE), "little", signed=True)

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self.returncode = self._read_number(timeout)
            os.close(self._status_pipe)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@cache
def _fork_server() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start the server once per test process; return the socket to it and its process. It ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_PROCESS")}
    command = [sys.executable, "-m", __name__, str(theirs.fileno())]
    process = subprocess.Popen(command, cwd=_ROOT, env=environ, pass_fds=[theirs.fileno()])
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours, process


def start_fork(
    arguments: Sequence[str], *, module: str = PROGRAM, environ: dict[str, str] | None = None, out: int, errors: int
) -> ForkedProcess:
    """Fork ``python -m MODULE ARGUMENTS`` in the current folder with empty input; output goes to these descriptors."""
    environ = dict(os.environ if environ is None else environ)
    assert all(environ[name] == os.environ.get(name) for name in environ if name.startswith("PYTHON")), (
        "the forking interpreter already runs"
    )
    request = ForkRequest(module, list(arguments), environ, os.getcwd())
    status_pipe, status_writer = os.pipe()
    try:
        socket.send_fds(_fork_server()[0], [json.dumps(asdict(request)).encode()], [out, errors, status_writer])
    finally:
        os.close(status_writer)
    return ForkedProcess(status_pipe)


def run_fork(
    *arguments: str, module: str = PROGRAM, environ: dict[str, str] | None = None, timeout: float = 30
) -> subprocess.CompletedProcess[str]:
    """Fork a process, wait for its end and return its exit code and output. Arguments as for `start_fork`."""
    with ExitStack() as files:
        outputs = [files.enter_context(os.fdopen(os.memfd_create(name), "r+b")) for name in ("out", "errors")]
        fork = start_fork(
            arguments, module=module, environ=environ, out=outputs[0].fileno(), errors=outputs[1].fileno()
        )
        try:
            fork.wait(timeout)
        finally:
            fork.kill()
        texts = []
        for file in outputs:
            file.seek(0)
            texts.append(file.read().decode())
    assert fork.returncode is not None
    return subprocess.CompletedProcess(list(arguments), fork.returncode, *texts)


def _preload_program() -> None:
    for command in COMMANDS:
        importlib.import_module(f"{PROGRAM}.cli.commands.{command}")
    asyncio.run(_warm_up_client())
    assert threading.active_count() == 1
    gc.collect()
    gc.freeze()


async def _warm_up_client() -> None:
    """Load the certificates and the modules that a first request loads."""
    async with PicwishClient(base_url="http://127.0.0.1:9", key="k", timeout=1) as client:
        await client.probe()


def _report_exits(status_writers: dict[int, int]) -> None:
    while status_writers:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        status_writer = status_writers.pop(pid)
        _write_number(status_writer, os.waitstatus_to_exitcode(status))
        os.close(status_writer)


def _write_number(status_writer: int, number: int) -> None:
    # The test process may have closed its end.
    with suppress(BrokenPipeError):
        os.write(status_writer, number.to_bytes(_NUMBER_SIZE, "little", signed=True))


def _serve(ours: socket.socket) -> None:
    """Fork for each request until the socket is closed."""
    wakeup_reader, wakeup_writer = os.pipe()
    os.set_blocking(wakeup_writer, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # An interrupt at the terminal is meant for the forks.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(wakeup_writer, warn_on_full_buffer=False)
    status_writers = dict[int, int]()
    while True:
        ready, _, _ = select.select([ours.fileno(), wakeup_reader], [], [])
        if wakeup_reader in ready:
            os.read(wakeup_reader, 1000)
            _report_exits(status_writers)
        if ours.fileno() in ready:
            text, files, _, _ = socket.recv_fds(ours, 2**20, 3)
            if not text:
                return
            *streams, status_writer = files
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                ours.close()
                for file in (wakeup_reader, wakeup_writer, status_writer, *status_writers.values()):
                    os.close(file)
                _run_in_fork(ForkRequest(**json.loads(text)), streams)
            status_writers[pid] = status_writer
            _write_number(status_writer, pid)
            for file in streams:
                os.close(file)


def _run_in_fork(request: ForkRequest, streams: list[int]) -> None:
    """Run the program in the fork as a new interpreter would."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for source, target in zip(streams, (1, 2), strict=True):
        os.dup2(source, target)
        os.close(source)
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environ)
    time.tzset()
    # Measure coverage where the environment asks for it.
    coverage.process_startup()
    sys.argv[1:] = request.arguments
    code: object = 0
    try:
        runpy.run_module(request.module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code or 0
    # Do what an interpreter does at its end, except for tearing down all modules, which is slow.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    with open(os.devnull) as nothing, open(os.devnull, "w") as nowhere:
        os.dup2(nothing.fileno(), 0)
        os.dup2(nowhere.fileno(), 1)
    _preload_program()
    _serve(socket.socket(fileno=int(sys.argv[1])))
