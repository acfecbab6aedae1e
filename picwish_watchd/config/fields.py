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


def validate_with(read: Callable[..., object], **limits: Any) -> PlainValidator:
    return PlainValidator(lambda value: read(value, **limits))


def validate_in_context(read: Callable[[object, strings.ResolveContext | None], object]) -> PlainValidator:
    def at_home(value: object, info: ValidationInfo) -> object:
        return read(value, info.context)

    return PlainValidator(at_home)


def _parse_optional_path(value: object, home: strings.ResolveContext | None) -> Path | None:
    return None if value is None else strings.parse_path(value, home)


def parse_secret(value: object, home: strings.ResolveContext | None) -> SecretStr | None:
    if value is None or isinstance(value, SecretStr):
        return value
    try:
        return SecretStr(strings.expand_variables(value, home))
    except units.InvalidValueError as refused:
        raise units.InvalidValueError(refused.allowed, found="a value that is not shown here") from None


def parse_file_mode(value: object, home: strings.ResolveContext | None) -> int:
    # In code and in the journal a mode is a number; only a person's file has to spell it in octal.
    written = f"{value:03o}" if home is None and isinstance(value, int) else value
    return units.parse_octal_mode(written)


def require_nonempty(patterns: tuple[str, ...]) -> tuple[str, ...]:
    if not patterns:
        raise units.InvalidValueError("a list with at least one entry")
    return patterns


Flag = Annotated[bool, validate_with(units.parse_flag)]


Duration = Annotated[float, validate_with(units.parse_duration)]


DurationOrZero = Annotated[float, validate_with(units.parse_duration, zero=True)]


Size = Annotated[int, validate_with(units.parse_size)]


Count = Annotated[int, validate_with(units.parse_whole_number, least=1)]


Folder = Annotated[Path, validate_in_context(strings.parse_path)]


OptionalPath = Annotated[Path | None, validate_in_context(_parse_optional_path)]


Patterns = tuple[Annotated[str, validate_with(strings.parse_text)], ...]


class Section(BaseModel):
    """A part of the file: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")
