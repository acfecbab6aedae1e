"""The types of single configuration values: durations, sizes, folders, patterns, secrets."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    PlainValidator,
    SecretStr,
    ValidationInfo,
)

from picwish_watchd.config import strings, units

if TYPE_CHECKING:
    # it stands on this file
    pass


def _by(read: Callable[..., object], **limits: Any) -> PlainValidator:
    return PlainValidator(lambda value: read(value, **limits))


def _by_place(read: Callable[[object, strings.Home | None], object]) -> PlainValidator:
    def at_home(value: object, info: ValidationInfo) -> object:
        return read(value, info.context)

    return PlainValidator(at_home)


def _path_or_none(value: object, home: strings.Home | None) -> Path | None:
    return None if value is None else strings.path(value, home)


def _secret(value: object, home: strings.Home | None) -> SecretStr | None:
    if value is None or isinstance(value, SecretStr):
        return value
    try:
        return SecretStr(strings.expanded(value, home))
    except units.RefusedError as refused:
        raise units.RefusedError(refused.allowed, found="a value that is not shown here") from None


def _mode(value: object, home: strings.Home | None) -> int:
    # In code and in the journal a mode is a number; only a person's file has to spell it in octal.
    written = f"{value:03o}" if home is None and isinstance(value, int) else value
    return units.mode(written)


def _some(patterns: tuple[str, ...]) -> tuple[str, ...]:
    if not patterns:
        raise units.RefusedError("a list with at least one entry")
    return patterns


Flag = Annotated[bool, _by(units.flag)]


Duration = Annotated[float, _by(units.duration)]


DurationOrZero = Annotated[float, _by(units.duration, zero=True)]


Size = Annotated[int, _by(units.size)]


Count = Annotated[int, _by(units.whole, least=1)]


Folder = Annotated[Path, _by_place(strings.path)]


OptionalPath = Annotated[Path | None, _by_place(_path_or_none)]


Patterns = tuple[Annotated[str, _by(strings.text)], ...]


class Section(BaseModel):
    """A part of the file: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")
