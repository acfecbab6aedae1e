"""Processes that have imported the program before they begin: each is a fork of one that has done nothing else.

    python -m tests.support.fork_server FD     (what `begin` speaks to; it ends with the process that started it)

A fork of a process with one thread, which has opened nothing, is as good as a process of its own, and costs a tenth.
It has its own number, environment, folder, files and memory, and it dies of any signal. What it does not promise is
that the program can be loaded, and in which order: that is what tests with a process made from nothing are for.
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
# bytes of one, on its way from the nursery
_NUMBER_SIZE = 4


@dataclass(frozen=True)
class ForkRequest:
    module: str
    arguments: list[str]
    environ: dict[str, str]
    folder: str


class ForkedProcess:
    """A process that was begun, with the part of `subprocess.Popen` that tests need."""

    def __init__(self, told: int) -> None:
        # its number, and at its end its exit code
        self._told = told
        self.pid = self._read_number(None)
        self.returncode: int | None = None

    def _read_number(self, timeout: float | None) -> int:
        if not select.select([self._told], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("fork", timeout or 0)
        return int.from_bytes(os.read(self._told, _NUMBER_SIZE), "little", signed=True)

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self.returncode = self._read_number(timeout)
            os.close(self._told)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@cache
def _fork_server() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """The process that forks, and how it is spoken to; it ends with this one."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_PROCESS")}
    command = [sys.executable, "-m", __name__, str(its.fileno())]
    process = subprocess.Popen(command, cwd=_ROOT, env=environ, pass_fds=[its.fileno()])
    its.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours, process


def start_fork(
    arguments: Sequence[str], *, module: str = PROGRAM, environ: dict[str, str] | None = None, out: int, errors: int
) -> ForkedProcess:
    """As ``python -m MODULE ARGUMENTS`` here and now, with nothing to read, writing to these two files."""
    environ = dict(os.environ if environ is None else environ)
    assert all(environ[name] == os.environ.get(name) for name in environ if name.startswith("PYTHON")), "it has begun"
    order = ForkRequest(module, list(arguments), environ, os.getcwd())
    told, tell = os.pipe()
    try:
        socket.send_fds(_fork_server()[0], [json.dumps(asdict(order)).encode()], [out, errors, tell])
    finally:
        os.close(tell)
    return ForkedProcess(told)


def run_fork(
    *arguments: str, module: str = PROGRAM, environ: dict[str, str] | None = None, timeout: float = 30
) -> subprocess.CompletedProcess[str]:
    """Such a process from its beginning to its end, and what it said."""
    with ExitStack() as files:
        said = [files.enter_context(os.fdopen(os.memfd_create(name), "r+b")) for name in ("out", "errors")]
        fork = start_fork(arguments, module=module, environ=environ, out=said[0].fileno(), errors=said[1].fileno())
        try:
            fork.wait(timeout)
        finally:
            fork.kill()
        texts = []
        for file in said:
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
    """Reads the certificates, and loads what is loaded with a first request."""
    async with PicwishClient(base_url="http://127.0.0.1:9", key="k", timeout=1) as client:
        await client.probe()


def _report_exits(watched: dict[int, int]) -> None:
    while watched:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        tell = watched.pop(pid)
        _write_number(tell, os.waitstatus_to_exitcode(status))
        os.close(tell)


def _write_number(tell: int, number: int) -> None:
    # nobody wants to know any more
    with suppress(BrokenPipeError):
        os.write(tell, number.to_bytes(_NUMBER_SIZE, "little", signed=True))


def _serve(ours: socket.socket) -> None:
    """A fork for each order, until nobody can give any more."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # who interrupts the tests means the forks
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    watched = dict[int, int]()
    while True:
        ready, _, _ = select.select([ours.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 1000)
            _report_exits(watched)
        if ours.fileno() in ready:
            text, files, _, _ = socket.recv_fds(ours, 2**20, 3)
            if not text:
                return
            *streams, tell = files
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                ours.close()
                for file in (woken, wake, tell, *watched.values()):
                    os.close(file)
                _run_in_fork(ForkRequest(**json.loads(text)), streams)
            watched[pid] = tell
            _write_number(tell, pid)
            for file in streams:
                os.close(file)


def _run_in_fork(order: ForkRequest, streams: list[int]) -> None:
    """In the fork: the program, as the interpreter would have begun it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for here, there in zip(streams, (1, 2), strict=True):
        os.dup2(here, there)
        os.close(here)
    os.chdir(order.folder)
    os.environ.clear()
    os.environ.update(order.environ)
    time.tzset()
    # where the environment says so
    coverage.process_startup()
    sys.argv[1:] = order.arguments
    code: object = 0
    try:
        runpy.run_module(order.module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code or 0
    threading._shutdown()  # type: ignore[attr-defined] # as at any end, but not taking all modules down, which is slow
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    with open(os.devnull) as nothing, open(os.devnull, "w") as nowhere:
        os.dup2(nothing.fileno(), 0)
        os.dup2(nowhere.fileno(), 1)
    _preload_program()
    _serve(socket.socket(fileno=int(sys.argv[1])))
