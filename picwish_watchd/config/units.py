"""Values of one key: numbers, durations, sizes, modes, words. Each function takes what YAML gave or refuses it."""

import math
import re
from enum import StrEnum
from typing import TypeVar

Word = TypeVar("Word", bound=StrEnum)

#: of whole numbers; SQLite and the kernel count in 64 bits
MAX_INTEGER = 10**18
#: of a finished job's history, seconds: a whole month can be looked into
MIN_RETENTION = 32 * 86400.0
#: of durations, seconds; a timer takes no more than about 290 years
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
    """A value that cannot be taken.

    ``allowed`` says what can be; ``meant`` is a likely correction; ``found`` is told instead of the value as it
    stands in the file, where quoting that would say too little or give a secret away.
    """

    def __init__(self, allowed: str, *, found: str | None = None, meant: str | None = None) -> None:
        super().__init__(allowed)
        self.allowed = allowed
        self.found = found
        self.suggestion = meant


def closest_match(word: str, known: list[str]) -> str | None:
    """The known word that was probably meant, or None."""
    # here: only what is wrong needs it
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, known, n=1)), None)


def parse_flag(value: object) -> bool:
    """``true`` or ``false``, in any of YAML's spellings; numbers and text are refused."""
    if isinstance(value, bool):
        return value
    raise InvalidValueError("true or false")


def parse_whole_number(value: object, *, least: int | None = None) -> int:
    """A whole number; bool is not one."""
    allowed = "a whole number" if least is None else f"a whole number of at least {least}"
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > MAX_INTEGER:
        raise InvalidValueError(allowed)
    if least is not None and value < least:
        raise InvalidValueError(allowed)
    return value


def parse_credit_limit(value: object) -> int | None:
    """A whole number from 0 on, or nothing."""
    if value is None:
        return None
    try:
        return parse_whole_number(value, least=0)
    except InvalidValueError:
        raise InvalidValueError("a whole number of credits, 0 or more; or nothing for no limit") from None


def parse_retention(value: object) -> float | None:
    """``forever`` or nothing, which become None, or a duration of at least `SHORTEST_KEEP`."""
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
    """One of a few whole numbers."""
    if isinstance(value, bool) or not isinstance(value, int) or value not in among:
        raise InvalidValueError(" or ".join(map(str, among)))
    return value


def parse_rate(value: object) -> float:
    """Requests per second: above 0, at most 1000."""
    number = _to_finite_float(value)
    if number is None or not 0 < number <= 1000:
        raise InvalidValueError("a number above 0, at most 1000")
    return number


def parse_auto_or_whole(value: object) -> int | None:
    """``auto``, which becomes None, or a whole number of at least 1."""
    if value == "auto" or value is None:
        return None
    try:
        return parse_whole_number(value, least=1)
    except InvalidValueError as refused:
        raise InvalidValueError(f"auto, or {refused.allowed}") from None


def parse_duration(value: object, *, zero: bool = False, most: float = MAX_DURATION) -> float:
    """Seconds: a number of them, or text such as ``500ms``, ``2s``, ``5m``, ``1h``, ``7d``."""
    bounds = f"{'0 or more' if zero else 'above 0'}, at most {format_duration(most)}"
    seconds = _to_finite_float(value) if not isinstance(value, str) else _parse_amount(value, _SECONDS_BY_UNIT)
    if seconds is None or not math.isfinite(seconds):
        raise InvalidValueError(f"a duration such as 500ms, 2s, 5m, 1h, 7d, or a number of seconds; {bounds}")
    if seconds < 0 or seconds > most or (seconds == 0 and not zero):
        raise InvalidValueError(f"a duration {bounds}")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest spelling that `duration` reads back: 300.0 -> ``5m``."""
    for unit in ("d", "h", "m"):
        if seconds >= _SECONDS_BY_UNIT[unit] and seconds % _SECONDS_BY_UNIT[unit] == 0:
            return f"{seconds / _SECONDS_BY_UNIT[unit]:.15g}{unit}"
    return f"{seconds:.15g}s"


def parse_size(value: object) -> int:
    """Bytes: a whole number of them, or text such as ``30MB`` (10^6 each) or ``30MiB`` (2^20 each)."""
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
    """Permission bits of a file from text in octal, ``"0644"``: 0000 to 0777.

    A bare ``0644`` comes as text too, for `source` leaves numbers that are not plainly decimal as they were written.
    A bare ``644`` is a decimal number to YAML and would be mode 1204: it is refused, not guessed.
    """
    match = _MODE_PATTERN.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise InvalidValueError('an octal mode in quotes, such as "0644" or "0640"; "0000" to "0777"')
    return int(match[1], 8)


def parse_enum(value: object, kind: type[Word]) -> Word:
    """One of the words of an enumeration."""
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
