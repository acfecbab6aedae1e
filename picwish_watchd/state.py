"""The states of a job and its legal transitions, apart from `job` so that commands which need no more load quickly."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class State(StrEnum):
    """The state of a job. The journal stores these words, and users see them."""

    #: The file is settled, complete and within the limits; the job waits until it may be submitted.
    QUEUED = "queued"
    #: The intent to submit is recorded; from here on PicWish may have received the image.
    SUBMITTING = "submitting"
    #: PicWish gave a task_id and works on the task.
    PENDING = "pending"
    #: PicWish succeeded; the result is being brought into the spool.
    FETCHING = "fetching"
    #: The result is complete and synced in the spool; it is on its way to the outbox.
    DELIVERING = "delivering"
    #: The result is in the outbox.
    DONE = "done"
    #: The file itself is at fault; it was never submitted.
    REJECTED = "rejected"
    #: PicWish refused the image, or another try is not worth it.
    FAILED = "failed"
    #: Continuing could cost credits twice, so a person decides.
    HELD = "held"


UNFINISHED = (State.QUEUED, State.SUBMITTING, State.PENDING, State.FETCHING, State.DELIVERING)
#: PicWish may have received the image, works on it, or holds its result; nothing of it is on this machine yet.
AT_PICWISH = (State.SUBMITTING, State.PENDING, State.FETCHING)
UNSUCCESSFUL = (State.REJECTED, State.FAILED, State.HELD)

#: The states that may follow each state; any other transition is a bug. What `retry` may do is in the last three rows.
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
