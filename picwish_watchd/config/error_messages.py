"""How a fault is told: file, line, key, what was found, what is allowed."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from picwish_watchd.config.units import RefusedError, closest

# `source` speaks these words too, and a command that only looks does not wait for pydantic
if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

#: the way to a value: ("rules", 0, "settle")
Where = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong in the file."""

    #: the first is 1
    line: int
    key: str
    found: str
    allowed: str
    meant: str | None = None

    def __str__(self) -> str:
        hint = f'; did you mean "{self.meant}"? ' if self.meant else "; "
        return f"{self.key}: found {self.found}{hint}allowed: {self.allowed}"


def spell(where: Where) -> str:
    """``("rules", 0, "settle")`` -> ``rules[0].settle``."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{printable(step)}" for step in where)
    return "".join(steps).removeprefix(".")


def printable(text: str) -> str:
    """Text from the file, fit for one line of a terminal: at most 60 characters, none that controls anything."""
    shown = text if len(text) <= 60 else text[:60] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def refusal(error: "ErrorDetails", section: "type[BaseModel]", known: list[str]) -> RefusedError:
    """What one error of the schema means to a person; ``known``: the keys that may stand there.

    None of pydantic's own words is passed on. The kinds of errors are those that `picwish_watchd.config.schema` can
    cause: an unknown key, a missing one, a list that is none or is empty, and the refusals of `units` and `texts`.
    """
    kind, key = error["type"], str(error["loc"][-1])
    if kind == "extra_forbidden":
        return RefusedError(", ".join(known), found="an unknown key", meant=closest(key, known))
    if kind == "missing":
        return RefusedError(section.model_fields[key].description or "", found="nothing")
    if kind == "value_error":
        refused = error["ctx"]["error"]
        assert isinstance(refused, RefusedError)
        return refused
    assert kind == "tuple_type"
    return RefusedError('a list, such as ["*.jpg", "*.png"]')
