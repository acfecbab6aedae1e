"""The states that a job may be in, and its legal moves: all that many a command needs to know of jobs."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class State(StrEnum):
    """Where a job stands. The journal keeps these words; users see them."""

    #: settled, whole, within the limits; waits for its turn
    QUEUED = "queued"
    #: the intent: from here on PicWish may have received it
    SUBMITTING = "submitting"
    #: PicWish gave a task_id and works on it
    PENDING = "pending"
    #: PicWish succeeded; the result is being brought into the spool
    FETCHING = "fetching"
    #: the result is whole and synced in the spool; it goes to the outbox
    DELIVERING = "delivering"
    #: the result stands in the outbox
    DONE = "done"
    #: never submitted: the file is at fault
    REJECTED = "rejected"
    #: submitted and refused, or not worth another try
    FAILED = "failed"
    #: going on could cost credits twice: a person decides
    HELD = "held"


UNFINISHED = (State.QUEUED, State.SUBMITTING, State.PENDING, State.FETCHING, State.DELIVERING)
UNSUCCESSFUL = (State.REJECTED, State.FAILED, State.HELD)

#: from -> to; everything else is a bug. The last three rows are what `retry` may do.
ALLOWED_TRANSITIONS: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        State.QUEUED: frozenset(
            {State.SUBMITTING, State.DELIVERING, State.REJECTED, State.FAILED, State.DONE, State.HELD},
        ),
        State.SUBMITTING: frozenset(
            {State.QUEUED, State.PENDING, State.DELIVERING, State.FAILED, State.HELD},
        ),
        State.PENDING: frozenset({State.FETCHING, State.QUEUED, State.FAILED, State.HELD}),
        State.FETCHING: frozenset({State.DELIVERING, State.PENDING, State.QUEUED, State.FAILED, State.HELD}),
        State.DELIVERING: frozenset({State.DONE, State.PENDING, State.HELD}),
        State.DONE: frozenset(),
        State.REJECTED: frozenset({State.QUEUED}),
        State.FAILED: frozenset({State.QUEUED, State.PENDING, State.DELIVERING}),
        State.HELD: frozenset({State.QUEUED, State.PENDING, State.DELIVERING}),
    }
)
