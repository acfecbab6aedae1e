"""Word the faults of a configuration: line, key, what was found, what is allowed."""

from dataclasses import dataclass

#: The keys and list indexes that lead to a value: ("rules", 0, "settle").
KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class ConfigFault:
    """One fault in the file."""

    #: The first line is 1.
    line: int
    key: str
    found: str
    allowed: str
    #: A known word that was probably meant.
    suggestion: str | None = None

    def __str__(self) -> str:
        hint = f'; did you mean "{self.suggestion}"? ' if self.suggestion else "; "
        return f"{self.key}: found {self.found}{hint}allowed: {self.allowed}"


def format_key_path(where: KeyPath) -> str:
    """Return a key path as people write it: ``("rules", 0, "settle")`` becomes ``rules[0].settle``."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{render_excerpt(step)}" for step in where)
    return "".join(steps).removeprefix(".")


def render_excerpt(text: str) -> str:
    """Return text from the file so that it can be printed on one line: at most 60 characters, control ones escaped."""
    excerpt = text if len(text) <= 60 else text[:60] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in excerpt)
