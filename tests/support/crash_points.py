"""Runs the program and dies, as a power cut would, right after its n-th durable act.

    python -m tests.support.crash_points N COMMAND...

Durable acts are: a commit, a rename, a link, an unlink, an fsync, a file made under a final name; and the moments of a
paid POST that no file shows: the connection stands and the intent is written; the answer was read. With N = 0 nothing
dies, and the number of acts is printed on stdout at the end. The exit code of a death is 137.
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
    """Counts, and dies in time."""

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
        def counted(*args: Any, **kwargs: Any) -> Any:
            answer = function(*args, **kwargs)
            self.record(name)
            return answer

        return counted


def install_crash_point(acts: CrashPoint) -> None:
    """Counts every durable act of this process from now on."""
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

    def connecting(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        made: sqlite3.Connection = connect(*args, **{"factory": Connection, **kwargs})
        return made

    sqlite3.connect = connecting  # type: ignore[assignment] # a test's hand
    create = PicwishClient.create

    async def watched(self: PicwishClient, request: Any, *, sink: Any, started: Any, sent: Any, **more: Any) -> Any:
        async def begun() -> None:
            await started()
            acts.record("intent written")

        outcome = await create(self, request, sink=sink, started=begun, sent=sent, **more)
        acts.record("answer read")
        return outcome

    PicwishClient.create = watched  # type: ignore[method-assign] # a test's hand


if __name__ == "__main__":
    counter = CrashPoint(int(sys.argv[1]))
    install_crash_point(counter)
    code = main(sys.argv[2:])
    print(counter.count, *counter.names, flush=True)
    os._exit(code)
