"""PicWish's states of a task, and what each means for the job (API document, "state"; PicWish's status code page)."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType


class Fate(Enum):
    """What a state means for the job."""

    UNDER_WAY = "under way"  #: ask again later
    SUCCEEDED = "succeeded"  #: the result can be fetched
    FAILED = "failed"  #: costs nothing, and another submission may succeed
    HOPELESS = "hopeless"  #: costs nothing, and another submission would fail just so


@dataclass(frozen=True, slots=True)
class Meaning:
    """A state in words: a sentence part for people, with what to do where something can be done."""

    fate: Fate
    says: str


_AGAIN, _NEVER = Fate.FAILED, Fate.HOPELESS

STATES: Mapping[int, Meaning] = MappingProxyType(
    {
        4: Meaning(Fate.UNDER_WAY, "it is being processed"),
        3: Meaning(Fate.UNDER_WAY, "it waits to be processed"),
        2: Meaning(Fate.UNDER_WAY, "it is being prepared"),
        1: Meaning(Fate.SUCCEEDED, "it is done"),
        0: Meaning(Fate.UNDER_WAY, "it is queued, as too many requests are there"),
        -1: Meaning(_AGAIN, "it failed for a reason that PicWish does not name"),
        -2: Meaning(_AGAIN, "the result could not be stored at PicWish"),
        -3: Meaning(_AGAIN, "PicWish could not download the picture from its URL"),
        -5: Meaning(_NEVER, "the picture is too large for PicWish; make it smaller"),
        -7: Meaning(_NEVER, "PicWish finds that this is no valid image file; save it anew with an image program"),
        -8: Meaning(_AGAIN, "it took longer than the 30 s that PicWish allows itself"),
        -9: Meaning(_AGAIN, "an internal error of PicWish"),
        -10: Meaning(_NEVER, "PicWish's review refused the picture"),
        -11: Meaning(_NEVER, "the result was empty"),
        -13: Meaning(_AGAIN, "an exception at PicWish cancelled it"),
        -14: Meaning(_NEVER, "what the picture shows does not meet PicWish's requirements"),
        -15: Meaning(_AGAIN, "PicWish had not enough resources"),
        -16: Meaning(_NEVER, "a third party's review refused the picture"),
        -17: Meaning(_NEVER, "PicWish calls the prompt invalid, though none was sent; ask PicWish's support"),
    }
)


def meaning_of(state: int) -> Meaning:
    """Total: above 1 is under way, an unknown negative state is a failure that is worth another try."""
    if state in STATES:
        return STATES[state]
    if state > 1:
        return Meaning(Fate.UNDER_WAY, "it is under way")
    return Meaning(Fate.FAILED, "an error that PicWish's documents do not list")
