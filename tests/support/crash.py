"""Runs the program and dies, as a power cut would, right after its n-th durable act.

    python -m tests.support.crash N COMMAND...

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

DIED = 137


class Acts:
    """Counts, and dies in time."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.count = 0
        self.names: list[str] = []

    def happened(self, name: str) -> None:
        self.count += 1
        self.names.append(name)
        if self.count == self.last:
            os._exit(DIED)

    def after(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            answer = function(*args, **kwargs)
            self.happened(name)
            return answer

        return counted


def install(acts: Acts) -> None:
    """Counts every durable act of this process from now on."""
    for name in ("rename", "replace", "link", "unlink", "fsync"):
        setattr(os, name, acts.after(name, getattr(os, name)))
    atomic_write._WAYS = (acts.after("renameat2", atomic_write.by_renameat2), *atomic_write._WAYS[1:])
    atomic_write.without_clobber.__defaults__ = (atomic_write._WAYS,)

    class Cursor(sqlite3.Cursor):
        def execute(self, sql: str, *args: Any) -> "Cursor":
            super().execute(sql, *args)
            if sql == "COMMIT":
                acts.happened("commit")
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
            acts.happened("intent written")

        outcome = await create(self, request, sink=sink, started=begun, sent=sent, **more)
        acts.happened("answer read")
        return outcome

    PicwishClient.create = watched  # type: ignore[method-assign] # a test's hand


if __name__ == "__main__":
    counter = Acts(int(sys.argv[1]))
    install(counter)
    code = main(sys.argv[2:])
    print(counter.count, *counter.names, flush=True)
    os._exit(code)
