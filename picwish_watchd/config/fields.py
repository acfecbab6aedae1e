"""The types of single configuration values: durations, sizes, folders, patterns, secrets."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    PlainValidator,
    SecretStr,
    ValidationInfo,
)

from picwish_watchd.config import strings, units


def validate_with(parse: Callable[..., object], **limits: Any) -> PlainValidator:
    """Validate a value with ``parse(value, **limits)``, which raises `InvalidValueError`."""
    return PlainValidator(lambda value: parse(value, **limits))


def validate_in_context(parse: Callable[[object, strings.ResolveContext | None], object]) -> PlainValidator:
    """Validate a value with ``parse(value, context)``; the context is None unless the value comes from a file."""

    def parse_in_context(value: object, info: ValidationInfo) -> object:
        return parse(value, info.context)

    return PlainValidator(parse_in_context)


def _parse_optional_path(value: object, context: strings.ResolveContext | None) -> Path | None:
    return None if value is None else strings.parse_path(value, context)


def parse_secret(value: object, context: strings.ResolveContext | None) -> SecretStr | None:
    """Parse a secret, or None. Raises `InvalidValueError`, which does not quote it."""
    if value is None or isinstance(value, SecretStr):
        return value
    try:
        return SecretStr(strings.expand_variables(value, context))
    except units.InvalidValueError as invalid:
        raise units.InvalidValueError(invalid.allowed, found="a value that is not shown here") from None


def parse_file_mode(value: object, context: strings.ResolveContext | None) -> int:
    """Parse the permission bits of a file: an octal string in a file of a person, a number elsewhere."""
    # In code and in the journal a mode is a number; only in a configuration file it has to be written in octal.
    text = f"{value:03o}" if context is None and isinstance(value, int) else value
    return units.parse_octal_mode(text)


def require_nonempty(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the patterns; raise `InvalidValueError` if there is none."""
    if not patterns:
        raise units.InvalidValueError("a list with at least one entry")
    return patterns


Flag = Annotated[bool, validate_with(units.parse_flag)]
#: Seconds, above 0.
Duration = Annotated[float, validate_with(units.parse_duration)]
#: Seconds, 0 or more.
DurationOrZero = Annotated[float, validate_with(units.parse_duration, zero=True)]
#: Bytes.
Size = Annotated[int, validate_with(units.parse_size)]
#: A whole number of at least 1.
Count = Annotated[int, validate_with(units.parse_whole_number, least=1)]
#: An absolute path.
Folder = Annotated[Path, validate_in_context(strings.parse_path)]
OptionalPath = Annotated[Path | None, validate_in_context(_parse_optional_path)]
Patterns = tuple[Annotated[str, validate_with(strings.parse_text)], ...]


class Section(BaseModel):
    """A part of the configuration file: frozen, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")
