"""How a fault is told: file, line, key, what was found, what is allowed."""

from dataclasses import dataclass

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
