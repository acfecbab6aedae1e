"""Jobs in every state, and what to compare."""

import hashlib
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

from picwish_watchd.job import ALLOWED_TRANSITIONS, Job, NewJob, Stamp, State
from picwish_watchd.journal.writer import Journal

STAMP = Stamp(inode=17, size=1234, mtime_ns=1_700_000_000_123_456_789)


def new_job(name: str = "a.jpg", rule: str = "scans", **facts: Any) -> NewJob:
    """A picture that intake found below /inbox."""
    new = NewJob(
        rule=rule,
        source=Path("/inbox") / name,
        relative=Path(name),
        stamp=STAMP,
        sha256=hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest(),
    )
    return replace(new, **facts)


def add_job(journal: Journal, name: str = "a.jpg", rule: str = "scans", **facts: Any) -> Job:
    """The job of a new picture."""
    [job_id] = journal.add_jobs([new_job(name, rule, **facts)])
    return get_job(journal, job_id)


def get_job(journal: Journal, job_id: int) -> Job:
    """The job as the journal has it."""
    job = journal.get(job_id)
    assert job is not None
    return job


def path_to_state(state: State) -> list[State]:
    """The shortest legal way from `queued`."""
    ways = deque([[State.QUEUED]])
    while ways:
        way = ways.popleft()
        if way[-1] is state:
            return way[1:]
        ways.extend([*way, following] for following in sorted(ALLOWED_TRANSITIONS[way[-1]]) if following not in way)
    raise AssertionError(f"no way leads to {state}")


def add_job_in_state(journal: Journal, state: State, name: str = "a.jpg", rule: str = "scans") -> Job:
    """A job that went to ``state`` by legal moves."""
    job = add_job(journal, name, rule)
    for step in path_to_state(state):
        job = journal.transition(job, step, f"on the way to {state}")
    return job
