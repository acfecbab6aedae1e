"""Parse single values: numbers, durations, sizes, modes, words.

Each ``parse_...`` function takes what YAML gives, and raises `InvalidValueError` for a value that is not allowed.
"""

import math
import re
from enum import StrEnum
from typing import TypeVar

Word = TypeVar("Word", bound=StrEnum)

#: Of whole numbers. SQLite and the kernel use 64 bits.
MAX_INTEGER = 10**18
#: Seconds that the history of a finished job has to be kept: more than a month, so that a whole one can be looked at.
MIN_RETENTION = 32 * 86400.0
#: Of durations, in seconds. A timer allows no more than about 290 years.
MAX_DURATION = 3650 * 86400.0

_SECONDS_BY_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES_BY_UNIT = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
_AMOUNT_PATTERN = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?) ?([A-Za-z]+)", re.ASCII)
_MODE_PATTERN = re.compile(r"(?:0o?)?([0-7]{3})", re.ASCII)


class InvalidValueError(ValueError):
    """A value that is not allowed.

    ``allowed`` says what is; ``meant`` is a likely correction. ``found`` replaces the quoted value in the message,
    where the value would say too little or is secret.
    """

    def __init__(self, allowed: str, *, found: str | None = None, meant: str | None = None) -> None:
        super().__init__(allowed)
        self.allowed = allowed
        self.found = found
        self.suggestion = meant


def closest_match(word: str, known: list[str]) -> str | None:
    """Return the known word that was probably meant, or None."""
    # Imported here, as only faults need it.
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, known, n=1)), None)


def parse_flag(value: object) -> bool:
    """Parse ``true`` or ``false``, in any of YAML's spellings; numbers and text are refused."""
    if isinstance(value, bool):
        return value
    raise InvalidValueError("true or false")


def parse_whole_number(value: object, *, least: int | None = None) -> int:
    """Parse a whole number of at least ``least``; true and false are not numbers."""
    allowed = "a whole number" if least is None else f"a whole number of at least {least}"
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > MAX_INTEGER:
        raise InvalidValueError(allowed)
    if least is not None and value < least:
        raise InvalidValueError(allowed)
    return value


def parse_credit_limit(value: object) -> int | None:
    """Parse a whole number of at least 0, or nothing, which is no limit."""
    if value is None:
        return None
    try:
        return parse_whole_number(value, least=0)
    except InvalidValueError:
        raise InvalidValueError("a whole number of credits, 0 or more; or nothing for no limit") from None


def parse_retention(value: object) -> float | None:
    """Parse a duration of at least `MIN_RETENTION`; ``forever`` and nothing become None."""
    if value is None or value == "forever":
        return None
    try:
        seconds = parse_duration(value)
    except InvalidValueError:
        seconds = 0.0
    if seconds < MIN_RETENTION:
        least, most = format_duration(MIN_RETENTION), format_duration(MAX_DURATION)
        raise InvalidValueError(f"forever, or a duration such as 400d; at least {least}, at most {most}")
    return seconds


def parse_choice(value: object, among: tuple[int, ...]) -> int:
    """Parse one of a few whole numbers."""
    if isinstance(value, bool) or not isinstance(value, int) or value not in among:
        raise InvalidValueError(" or ".join(map(str, among)))
    return value


def parse_rate(value: object) -> float:
    """Parse a number of requests per second: above 0, at most 1000."""
    number = _to_finite_float(value)
    if number is None or not 0 < number <= 1000:
        raise InvalidValueError("a number above 0, at most 1000")
    return number


def parse_auto_or_whole(value: object) -> int | None:
    """Parse a whole number of at least 1; ``auto`` becomes None."""
    if value == "auto" or value is None:
        return None
    try:
        return parse_whole_number(value, least=1)
    except InvalidValueError as invalid:
        raise InvalidValueError(f"auto, or {invalid.allowed}") from None


def parse_duration(value: object, *, zero: bool = False, most: float = MAX_DURATION) -> float:
    """Parse a duration into seconds: a number of seconds, or text such as ``500ms``, ``2s``, ``5m``, ``1h``, ``7d``."""
    bounds = f"{'0 or more' if zero else 'above 0'}, at most {format_duration(most)}"
    seconds = _to_finite_float(value) if not isinstance(value, str) else _parse_amount(value, _SECONDS_BY_UNIT)
    if seconds is None or not math.isfinite(seconds):
        raise InvalidValueError(f"a duration such as 500ms, 2s, 5m, 1h, 7d, or a number of seconds; {bounds}")
    if seconds < 0 or seconds > most or (seconds == 0 and not zero):
        raise InvalidValueError(f"a duration {bounds}")
    return seconds


def format_duration(seconds: float) -> str:
    """Return the shortest text that `parse_duration` turns into ``seconds``: ``5m`` for 300.0."""
    for unit in ("d", "h", "m"):
        if seconds >= _SECONDS_BY_UNIT[unit] and seconds % _SECONDS_BY_UNIT[unit] == 0:
            return f"{seconds / _SECONDS_BY_UNIT[unit]:.15g}{unit}"
    return f"{seconds:.15g}s"


def parse_size(value: object) -> int:
    """Parse a size into bytes: a number of bytes, or text such as ``30MB`` (30 * 10^6) or ``30MiB`` (30 * 2^20)."""
    allowed = "a size such as 30MB, 30MiB, 500kB, 1GiB, or a whole number of bytes; at least 1 byte"
    if isinstance(value, str):
        amount = _parse_amount(value, _BYTES_BY_UNIT)
        if amount is None or not 1 <= amount <= MAX_INTEGER:
            raise InvalidValueError(allowed)
        return int(amount)
    try:
        return parse_whole_number(value, least=1)
    except InvalidValueError:
        raise InvalidValueError(allowed) from None


def parse_octal_mode(value: object) -> int:
    """Parse the permission bits of a file from octal text, ``"0000"`` to ``"0777"``.

    A bare ``0644`` is text too, as `yaml_document` keeps numbers that are not plainly decimal as they are written. A
    bare ``644`` is a decimal number in YAML, which would be mode 1204: it is refused.
    """
    match = _MODE_PATTERN.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise InvalidValueError('an octal mode in quotes, such as "0644" or "0640"; "0000" to "0777"')
    return int(match[1], 8)


def parse_enum(value: object, kind: type[Word]) -> Word:
    """Parse one of the words of an enumeration."""
    known = [str(member) for member in kind]
    if isinstance(value, str) and value in known:
        return kind(value)
    meant = closest_match(value.lower(), known) if isinstance(value, str) else None
    raise InvalidValueError(", ".join(known), meant=meant)


def _to_finite_float(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > MAX_INTEGER:
        return None
    return float(value) if math.isfinite(value) else None


def _parse_amount(text: str, units: dict[str, float] | dict[str, int]) -> float | None:
    match = _AMOUNT_PATTERN.fullmatch(text)
    if match is None or match[2] not in units:
        return None
    return float(match[1]) * units[match[2]]
