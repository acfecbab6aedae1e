"""Possible outcomes of looking at a file in an inbox, as values."""

from dataclasses import dataclass

from picwish_watchd.job import Problem, Stamp


@dataclass(frozen=True, slots=True)
class Incomplete:
    """Part of the file is not there yet: wait and look again."""

    reason: str
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Rejected:
    """The file cannot be processed as it is: it becomes a job that ends as `rejected`."""

    problem: Problem
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Changed:
    """The file was changed or replaced while it was read: wait until it is stable again."""


@dataclass(frozen=True, slots=True)
class Missing:
    """There is no such file, or not any more."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The system does not let us read the file: try again later."""

    reason: str
