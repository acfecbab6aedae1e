"""Run the program and kill it right after its n-th durable act, as a power cut would.

    python -m tests.support.crash_points N COMMAND...

Durable acts are a commit, a rename, a link, an unlink and an fsync. Two moments of a paid POST that no file shows count
as well: the intent is written on an open connection, and the response is read. With N = 0 the program survives, and
the number of acts and their names are printed on standard output. The exit code of a simulated death is 137.
"""

import os
import sqlite3
import sys
from collections.abc import Callable
from typing import Any

from picwish_watchd.cli.main import main
from picwish_watchd.fs import atomic_write
from picwish_watchd.picwish import PicwishClient

CRASH_EXIT_CODE = 137


class CrashPoint:
    """A counter of durable acts that ends the process at the act number ``last``."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.count = 0
        self.names: list[str] = []

    def record(self, name: str) -> None:
        self.count += 1
        self.names.append(name)
        if self.count == self.last:
            os._exit(CRASH_EXIT_CODE)

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call_and_record(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            self.record(name)
            return result

        return call_and_record


def install_crash_point(acts: CrashPoint) -> None:
    """Count every durable act of this process from now on."""
    for name in ("rename", "replace", "link", "unlink", "fsync"):
        setattr(os, name, acts.wrap(name, getattr(os, name)))
    atomic_write._RENAME_METHODS = (
        acts.wrap("renameat2", atomic_write.rename_by_renameat2),
        *atomic_write._RENAME_METHODS[1:],
    )
    atomic_write.rename_noreplace.__defaults__ = (atomic_write._RENAME_METHODS,)

    class Cursor(sqlite3.Cursor):
        def execute(self, sql: str, *args: Any) -> "Cursor":
            super().execute(sql, *args)
            if sql == "COMMIT":
                acts.record("commit")
            return self

    class Connection(sqlite3.Connection):
        def cursor(self, *_args: Any) -> Any:
            return super().cursor(Cursor)

    connect = sqlite3.connect

    def connect_with_cursor(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **{"factory": Connection, **kwargs})
        return connection

    sqlite3.connect = connect_with_cursor  # type: ignore[assignment]
    create = PicwishClient.create

    async def create_and_record(
        self: PicwishClient, request: Any, *, sink: Any, on_send_start: Any, **more: Any
    ) -> Any:
        async def start_and_record() -> None:
            await on_send_start()
            acts.record("intent written")

        outcome = await create(self, request, sink=sink, on_send_start=start_and_record, **more)
        acts.record("answer read")
        return outcome

    PicwishClient.create = create_and_record  # type: ignore[method-assign]


if __name__ == "__main__":
    counter = CrashPoint(int(sys.argv[1]))
    install_crash_point(counter)
    code = main(sys.argv[2:])
    print(counter.count, *counter.names, flush=True)
    os._exit(code)
