"""PicWish's states of a task and what each means for the job (API document, "state"; PicWish's status code page)."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType


class StateCategory(Enum):
    """What a state means for the job."""

    #: PicWish works on it; query it again later.
    IN_PROGRESS = "under way"
    #: The result can be fetched.
    SUCCEEDED = "succeeded"
    #: It costs nothing, and another submission may succeed.
    FAILED_RETRYABLE = "failed"
    #: It costs nothing, and another submission would fail in the same way.
    FAILED_PERMANENT = "hopeless"


@dataclass(frozen=True, slots=True)
class StateInfo:
    """The meaning of a state. ``description`` is a part of a sentence, with advice where something can be done."""

    category: StateCategory
    description: str


_RETRYABLE, _PERMANENT = StateCategory.FAILED_RETRYABLE, StateCategory.FAILED_PERMANENT

#: By the number that PicWish sends.
TASK_STATES: Mapping[int, StateInfo] = MappingProxyType(
    {
        4: StateInfo(StateCategory.IN_PROGRESS, "it is being processed"),
        3: StateInfo(StateCategory.IN_PROGRESS, "it waits to be processed"),
        2: StateInfo(StateCategory.IN_PROGRESS, "it is being prepared"),
        1: StateInfo(StateCategory.SUCCEEDED, "it is done"),
        0: StateInfo(StateCategory.IN_PROGRESS, "it is queued, because PicWish has too many requests"),
        -1: StateInfo(_RETRYABLE, "it failed for a reason that PicWish does not name"),
        -2: StateInfo(_RETRYABLE, "the result could not be stored at PicWish"),
        -3: StateInfo(_RETRYABLE, "PicWish could not download the image from its URL"),
        -5: StateInfo(_PERMANENT, "the image is too large for PicWish; make it smaller"),
        -7: StateInfo(_PERMANENT, "PicWish finds that this is no valid image file; save it anew with an image program"),
        -8: StateInfo(_RETRYABLE, "it took longer than the 30 s that PicWish allows itself"),
        -9: StateInfo(_RETRYABLE, "an internal error of PicWish"),
        -10: StateInfo(_PERMANENT, "PicWish's review refused the image"),
        -11: StateInfo(_PERMANENT, "the result was empty"),
        -13: StateInfo(_RETRYABLE, "an exception at PicWish cancelled it"),
        -14: StateInfo(_PERMANENT, "what the image shows does not meet PicWish's requirements"),
        -15: StateInfo(_RETRYABLE, "PicWish did not have enough resources"),
        -16: StateInfo(_PERMANENT, "a third party's review refused the image"),
        -17: StateInfo(_PERMANENT, "PicWish calls the prompt invalid, though none was sent; ask PicWish's support"),
    }
)


def classify_state(state: int) -> StateInfo:
    """Return the meaning of any state. An unknown one is in progress above 1, and a retryable failure below 0."""
    if state in TASK_STATES:
        return TASK_STATES[state]
    if state > 1:
        return StateInfo(StateCategory.IN_PROGRESS, "it is being worked on")
    return StateInfo(StateCategory.FAILED_RETRYABLE, "an error that PicWish's documents do not list")
