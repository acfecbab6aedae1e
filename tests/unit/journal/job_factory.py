"""Factories for jobs in every state."""

import hashlib
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

from picwish_watchd.job import ALLOWED_TRANSITIONS, Job, NewJob, Stamp, State
from picwish_watchd.journal.writer import Journal

STAMP = Stamp(inode=17, size=1234, mtime_ns=1_700_000_000_123_456_789)


def new_job(name: str = "a.jpg", rule: str = "scans", **facts: Any) -> NewJob:
    """Return a new image as intake finds it below /inbox."""
    new = NewJob(
        rule=rule,
        source=Path("/inbox") / name,
        relative=Path(name),
        stamp=STAMP,
        sha256=hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest(),
    )
    return replace(new, **facts)


def add_job(journal: Journal, name: str = "a.jpg", rule: str = "scans", **facts: Any) -> Job:
    """Add a new image to the journal and return its job."""
    [job_id] = journal.add_jobs([new_job(name, rule, **facts)])
    return get_job(journal, job_id)


def get_job(journal: Journal, job_id: int) -> Job:
    """Return the current job of this id."""
    job = journal.get(job_id)
    assert job is not None
    return job


def path_to_state(state: State) -> list[State]:
    """Return the states on the shortest legal path from `queued` to ``state``."""
    paths = deque([[State.QUEUED]])
    while paths:
        path = paths.popleft()
        if path[-1] is state:
            return path[1:]
        paths.extend([*path, following] for following in sorted(ALLOWED_TRANSITIONS[path[-1]]) if following not in path)
    raise AssertionError(f"no path to {state}")


def add_job_in_state(journal: Journal, state: State, name: str = "a.jpg", rule: str = "scans") -> Job:
    """Add a job and move it to ``state`` by legal transitions."""
    job = add_job(journal, name, rule)
    for step in path_to_state(state):
        job = journal.transition(job, step, f"on the path to {state}")
    return job
