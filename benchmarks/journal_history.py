"""A journal with a large number of finished jobs, and their originals."""

import os
import sqlite3
import time
from contextlib import closing

from benchmarks.processes import Workspace
from picwish_watchd.clock import Clock
from picwish_watchd.journal.writer import Journal

_ORIGINAL_BYTES = b"\xff\xd8 a picture that was enhanced long ago"


def fill_journal(here: Workspace, finished: int, pending: int, *, lying: bool) -> None:
    """Fill a journal with ``finished`` jobs and ``pending`` tasks, each with its history and its charge."""
    path = here.folder / "state" / "journal.db"
    Journal.open_for_writing(path, Clock()).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        for number in range(1, finished + pending + 1):
            _insert_rows(connection, here, number, done=number <= finished, lying=lying)
        connection.execute("COMMIT")


def _insert_rows(connection: sqlite3.Connection, here: Workspace, number: int, *, done: bool, lying: bool) -> None:
    name, now = f"{number // 1000:03d}/{number}.jpg", time.time()
    source = here.inbox / name
    inode, mtime_ns = number, 1_700_000_000_000_000_000
    if lying or not done:
        source.parent.mkdir(exist_ok=True)
        source.write_bytes(_ORIGINAL_BYTES)
        status = source.stat()
        inode, mtime_ns = status.st_ino, status.st_mtime_ns
    sha = f"{number:064x}"
    result = f'{{"format": "JPEG", "width": 220, "height": 220, "size": 90000, "sha256": "{number:063x}f"}}'
    connection.execute(
        "INSERT INTO job (id, rule, state, source, relative, inode, size, mtime_ns, kind, sha256, format, width,"
        " height, type, return_type, sync, task_id, attempts, result, output, answer, task_seconds, created_at,"
        " submitted_at, completed_at)"
        " VALUES (?, 'bench', ?, ?, ?, ?, ?, ?, 'file', ?, 'JPEG', 110, 110, 0, 1, 0, ?, 1, ?, ?, ?, ?, ?, ?, ?)",
        (
            number,
            "done" if done else "pending",
            os.fsencode(source),
            os.fsencode(name),
            inode,
            len(_ORIGINAL_BYTES),
            mtime_ns,
            sha,
            f"task-{number}",
            result if done else None,
            os.fsencode(here.outbox / name) if done else None,
            '{"status": 200, "data": {"state": 1, "progress": 100}}',
            8.0 if done else None,
            now,
            now,
            now if done else None,
        ),
    )
    states = ["queued", "submitting", "pending", *(["fetching", "delivering", "done"] if done else [])]
    connection.executemany(
        "INSERT INTO event (job, at, state, message) VALUES (?, ?, ?, 'a sentence of history about this image')",
        [(number, now, state) for state in states],
    )
    connection.execute(
        "INSERT INTO charge (job, rule, at, credits, state) VALUES (?, 'bench', ?, 5, ?)",
        (number, now, "spent" if done else "reserved"),
    )
