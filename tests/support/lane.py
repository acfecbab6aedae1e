"""Many lives in little time: each run of the program is a fork of a process that has imported everything already.

    python -m tests.support.lane     (JSON lines on stdin: {"die_after", "errors", "arguments"}; exit codes on stdout)

A fork of a process with one thread, which has opened nothing, is as good as a process of its own, and costs a tenth.
"""

import asyncio
import json
import os
import signal
import sys
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from picwish_watchd.cli import main
from picwish_watchd.cli import run as _imported_now  # noqa: F401 - the program imports its commands only when needed
from picwish_watchd.picwish import PicwishClient
from tests.support.crash import Acts, install
from tests.support.house import KEY, House

_PATIENCE = 60.0  # seconds for one run


class Lanes:
    """Some lanes, each for one run at a time. Made by `lanes`."""

    def __init__(self, children: list[asyncio.subprocess.Process]) -> None:
        self._free: asyncio.Queue[asyncio.subprocess.Process] = asyncio.Queue()
        for child in children:
            self._free.put_nowait(child)

    async def run_once(self, house: House, *, die_after: int | None = None) -> int:
        """``run --once``, which dies after so many acts (see `tests.support.crash`); its exit code."""
        order = {
            "die_after": die_after,
            "errors": str(house.root / "stderr.log"),
            "arguments": ["run", "-c", str(house.configure()), "--once"],
        }
        child = await self._free.get()
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps(order).encode() + b"\n")
        async with asyncio.timeout(_PATIENCE):
            code = int(await child.stdout.readline())
        self._free.put_nowait(child)
        return code


@asynccontextmanager
async def lanes(number: int) -> AsyncIterator[Lanes]:
    """So many lanes; at the end they are gone, and whatever still runs in them."""
    pipe = asyncio.subprocess.PIPE
    environ = {**os.environ, "PICWISH_API_KEY": KEY}
    command = (sys.executable, "-m", "tests.support.lane")
    children = [
        await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=environ, start_new_session=True)
        for _ in range(number)
    ]
    try:
        yield Lanes(children)
    finally:
        for child in children:
            assert child.stdin is not None
            child.stdin.close()
        try:
            async with asyncio.timeout(5):
                for child in children:
                    await child.wait()
        except TimeoutError:
            for child in children:
                if child.returncode is None:
                    os.killpg(child.pid, signal.SIGKILL)
                    await child.wait()


def live(die_after: int | None, errors: str, arguments: list[str]) -> int:
    """In the fork: one run, with files of its own for its words."""
    nothing = os.open(os.devnull, os.O_RDWR)
    sink = os.open(errors, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for here, there in ((nothing, 0), (nothing, 1), (sink, 2)):
        os.dup2(here, there)
    os.close(nothing)
    os.close(sink)
    if die_after is not None:
        install(Acts(die_after))
    return main(arguments)


def serve() -> None:
    """In the lane: a fork for every line."""
    PicwishClient(base_url="http://127.0.0.1:9", key=KEY, timeout=1)  # reads the certificates, once for all forks
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                code = live(**json.loads(line))
            except BaseException:  # noqa: BLE001 - it is told, and ends this fork
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
