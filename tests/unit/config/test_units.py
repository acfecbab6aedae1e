"""Single values: numbers, durations, sizes, modes, words."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picwish_watchd.config import units
from picwish_watchd.config.schema import IfExists
from picwish_watchd.config.units import InvalidValueError


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("500ms", 0.5),
        ("2s", 2.0),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("7d", 604800.0),
        ("1.5 s", 1.5),
        (2, 2.0),
        (0.25, 0.25),
    ],
)
def test_a_duration_is_a_number_of_seconds_or_a_number_with_a_unit(written: object, seconds: float) -> None:
    assert units.parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written",
    [
        "2",
        "2 parsecs",
        "5M",
        "1h30m",
        "-2s",
        "",
        "s",
        "1e3s",
        "12:30",
        "٣s",
        -1,
        True,
        None,
        [],
        math.nan,
        math.inf,
        10**19,
        "9999999d",
        0,
        "0s",
    ],
)
def test_what_is_no_duration_is_refused(written: object) -> None:
    with pytest.raises(InvalidValueError, match="a duration"):
        units.parse_duration(written)


def test_a_duration_of_zero_is_taken_only_where_it_makes_sense() -> None:
    assert units.parse_duration(0, zero=True) == 0


@pytest.mark.untraced
@given(st.integers(1, 10_000_000))
def test_a_spelt_duration_reads_back_to_itself(seconds: int) -> None:
    assert units.parse_duration(units.format_duration(seconds)) == pytest.approx(seconds, rel=1e-5)


@pytest.mark.parametrize(
    ("written", "count"),
    [
        ("30MB", 30_000_000),
        ("30MiB", 31_457_280),
        ("1kB", 1000),
        ("1KB", 1000),
        ("1KiB", 1024),
        ("2 GB", 2 * 10**9),
        ("1.5GiB", 1_610_612_736),
        ("7B", 7),
        (4096, 4096),
    ],
)
def test_a_size_is_bytes_in_powers_of_ten_or_of_two(written: object, count: int) -> None:
    assert units.parse_size(written) == count


@pytest.mark.parametrize(
    "written", ["30", "30mb", "30 Mb", "0MB", "0.1B", 0, -1, 1.5, True, None, "1e3B", "999999999999GB"]
)
def test_what_is_no_size_is_refused(written: object) -> None:
    with pytest.raises(InvalidValueError, match="a size such as 30MB, 30MiB"):
        units.parse_size(written)


@pytest.mark.parametrize(
    ("written", "bits"), [("0644", 0o644), ("640", 0o640), ("0o600", 0o600), ("000", 0), ("0777", 0o777)]
)
def test_a_mode_in_text_is_octal(written: str, bits: int) -> None:
    assert units.parse_octal_mode(written) == bits


@pytest.mark.parametrize("written", [644, 420, "0899", "1644", "64", "rw-r--r--", "0x1ff", None, True])
def test_a_mode_that_could_be_misread_is_refused(written: object) -> None:
    with pytest.raises(InvalidValueError, match='in quotes, such as "0644"'):
        units.parse_octal_mode(written)


@pytest.mark.parametrize("written", [True, 1.0, "1", None, 10**18 + 1, -(10**18) - 1])
def test_what_is_no_whole_number_is_refused(written: object) -> None:
    with pytest.raises(InvalidValueError, match="a whole number"):
        units.parse_whole_number(written)


def test_whole_numbers_have_a_least_one_where_that_makes_sense() -> None:
    assert units.parse_whole_number(-5) == -5
    assert units.parse_whole_number(1, least=1) == 1
    with pytest.raises(InvalidValueError, match="at least 1"):
        units.parse_whole_number(0, least=1)


@pytest.mark.parametrize("written", [0, -1, 1000.5, math.nan, math.inf, "2", True, None, 10**400])
def test_a_rate_is_above_zero_and_at_most_a_thousand(written: object) -> None:
    assert units.parse_rate(1000) == 1000
    with pytest.raises(InvalidValueError, match="above 0, at most 1000"):
        units.parse_rate(written)


def test_max_pending_is_auto_or_at_least_one() -> None:
    assert units.parse_auto_or_whole("auto") is None
    assert units.parse_auto_or_whole(1) == 1
    for written in (0, "many", 1.5, True):
        with pytest.raises(InvalidValueError, match="auto, or a whole number of at least 1"):
            units.parse_auto_or_whole(written)


@pytest.mark.parametrize("written", [2, -1, "0", True, False, None, 0.0])
def test_only_the_listed_numbers_are_a_choice(written: object) -> None:
    assert units.parse_choice(1, (0, 1)) == 1
    with pytest.raises(InvalidValueError, match=r"^0 or 1$"):
        units.parse_choice(written, (0, 1))


@pytest.mark.parametrize("written", [0, 1, "true", None, []])
def test_a_flag_is_true_or_false_and_nothing_else(written: object) -> None:
    assert units.parse_flag(True) is True
    with pytest.raises(InvalidValueError, match=r"^true or false$"):
        units.parse_flag(written)


@pytest.mark.parametrize(
    ("written", "meant"), [("renam", "rename"), ("Rename", "rename"), ("zzz", None), (False, None)]
)
def test_a_wrong_word_is_answered_with_the_words_and_the_likely_one(written: object, meant: str | None) -> None:
    assert units.parse_enum("skip", IfExists) is IfExists.SKIP
    with pytest.raises(InvalidValueError, match=r"^rename, overwrite, skip$") as caught:
        units.parse_enum(written, IfExists)
    assert caught.value.suggestion == meant


@pytest.mark.parametrize(
    ("written", "seconds"), [("400d", 400 * 86400.0), ("32d", 32 * 86400.0), (2764800, 32 * 86400.0)]
)
def test_histories_are_kept_for_a_duration_of_at_least_a_month_and_a_day(written: object, seconds: float) -> None:
    assert units.parse_retention(written) == seconds


@pytest.mark.parametrize("written", ["forever", None])
def test_histories_may_be_kept_for_ever(written: object) -> None:
    assert units.parse_retention(written) is None


@pytest.mark.parametrize("written", ["31d", "767h", 0, -1, "never", "for ever", True, [], "4000d", math.inf])
def test_histories_cannot_be_kept_shorter_or_for_no_time_at_all(written: object) -> None:
    with pytest.raises(InvalidValueError, match="forever, or a duration such as 400d; at least 32d, at most 3650d"):
        units.parse_retention(written)
