"""What may come of looking at a file in an inbox, as values; `images.inspect` and `links.inspect_link` answer them."""

from dataclasses import dataclass

from picwish_watchd.job import Problem, Stamp


@dataclass(frozen=True, slots=True)
class Incomplete:
    """The end of it, or a piece, is not there yet: wait."""

    reason: str
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Rejected:
    """It is at fault as it stands: a job that ends as `rejected`."""

    problem: Problem
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Changed:
    """It changed, or was replaced, while it was read: back to settling."""


@dataclass(frozen=True, slots=True)
class Missing:
    """There is no such file (any more)."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The system does not let us read it; to be tried again."""

    reason: str
