"""How a fault is told: file, line, key, what was found, what is allowed."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from picwish_watchd.config.units import InvalidValueError, closest_match

# `source` speaks these words too, and a command that only looks does not wait for pydantic
if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

#: the way to a value: ("rules", 0, "settle")
KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class ConfigFault:
    """Something wrong in the file."""

    #: the first is 1
    line: int
    key: str
    found: str
    allowed: str
    suggestion: str | None = None

    def __str__(self) -> str:
        hint = f'; did you mean "{self.suggestion}"? ' if self.suggestion else "; "
        return f"{self.key}: found {self.found}{hint}allowed: {self.allowed}"


def format_key_path(where: KeyPath) -> str:
    """``("rules", 0, "settle")`` -> ``rules[0].settle``."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{render_excerpt(step)}" for step in where)
    return "".join(steps).removeprefix(".")


def render_excerpt(text: str) -> str:
    """Text from the file, fit for one line of a terminal: at most 60 characters, none that controls anything."""
    shown = text if len(text) <= 60 else text[:60] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def explain_schema_error(error: "ErrorDetails", section: "type[BaseModel]", known: list[str]) -> InvalidValueError:
    """What one error of the schema means to a person; ``known``: the keys that may stand there.

    None of pydantic's own words is passed on. The kinds of errors are those that `picwish_watchd.config.schema` can
    cause: an unknown key, a missing one, a list that is none or is empty, and the refusals of `units` and `texts`.
    """
    kind, key = error["type"], str(error["loc"][-1])
    if kind == "extra_forbidden":
        return InvalidValueError(", ".join(known), found="an unknown key", meant=closest_match(key, known))
    if kind == "missing":
        return InvalidValueError(section.model_fields[key].description or "", found="nothing")
    if kind == "value_error":
        refused = error["ctx"]["error"]
        assert isinstance(refused, InvalidValueError)
        return refused
    assert kind == "tuple_type"
    return InvalidValueError('a list, such as ["*.jpg", "*.png"]')
