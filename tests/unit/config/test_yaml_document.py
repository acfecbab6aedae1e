"""YAML: line numbers, spellings, traps, and files that are not YAML."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from picwish_watchd.config import yaml_document
from picwish_watchd.errors import ConfigError


@pytest.fixture(params=["CSafeLoader", "SafeLoader"])
def parse(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., yaml_document.YamlDocument]:
    """Parse text or bytes, with libyaml and without; both must agree."""
    monkeypatch.setattr(yaml_document, "_LOADER", getattr(yaml, request.param))

    def parse(text: str | bytes) -> yaml_document.YamlDocument:
        file = tmp_path / "c.yaml"
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return yaml_document.read_yaml(file)

    return parse


def yaml_error(parse: Callable[..., yaml_document.YamlDocument], text: str | bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert "\n" not in caught.value.message
    return caught.value.message.rsplit("/", 1)[1]


def test_every_value_knows_its_line_and_spelling(parse: Callable[..., yaml_document.YamlDocument]) -> None:
    document = parse("api:\n  qps: 2\nrules:\n- name: a\n  settle:\n    5m\n- name: b\n")
    assert document.data == {"api": {"qps": 2}, "rules": [{"name": "a", "settle": "5m"}, {"name": "b"}]}
    assert [
        document.line(at) for at in (("api", "qps"), ("rules", 0), ("rules", 0, "settle"), ("rules", 1, "name"))
    ] == [2, 4, 5, 7]
    assert document.spelling(("rules", 0, "settle")) == '"5m"'


def test_a_key_that_is_not_there_has_the_line_of_what_is_around_it(
    parse: Callable[..., yaml_document.YamlDocument],
) -> None:
    document = parse("\n\nrules:\n  - name: a\n")
    assert document.line(("rules", 0, "outbox")) == 4
    assert document.line(("api", "qps")) == 1
    assert document.spelling(("api", "qps")) == "nothing"


@pytest.mark.parametrize(
    ("written", "value", "spelling"),
    [
        ("0644", "0644", "0644 (not a decimal number to YAML)"),
        ("010", "010", "010 (not a decimal number to YAML)"),
        ("0x10", "0x10", "0x10 (not a decimal number to YAML)"),
        ("12:30", "12:30", "12:30 (a number to base 60 to YAML)"),
        ("1:30.5", "1:30.5", "1:30.5 (a number to base 60 to YAML)"),
        ("1e3", "1e3", '"1e3" (text to YAML; write the number out)'),
        ("1_000", 1000, "1_000"),
        ("-7", -7, "-7"),
        ("1.5", 1.5, "1.5"),
        (".5", 0.5, ".5"),
        (".inf", ".inf", ".inf"),
        ("no", False, "no (false to YAML; put it in quotes if it is a word)"),
        ("On", True, "On (true to YAML; put it in quotes if it is a word)"),
        ("true", True, "true"),
        ("~", None, "~ (nothing to YAML; put it in quotes)"),
        ("", None, "nothing"),
        ('"no"', "no", '"no"'),
        ("'5'", "5", '"5"'),
        ("2026-01-02", "2026-01-02", "2026-01-02"),
        ("!!str 5", "5", '"5"'),
        ("!!int five", "five", "five (not a decimal number to YAML)"),
        ("!!bool five", "five", "five (none to YAML; put it in quotes if it is a word)"),
        ("!!float .", ".", "."),
        ('"\\e[31m"', "\x1b[31m", '"\\x1b[31m"'),
        ("x" * 70, "x" * 70, '"' + "x" * 60 + '…"'),
        ("[]", [], "an empty list"),
        ("[1]", [1], "a list"),
        ("{}", {}, "a mapping"),
    ],
)
def test_only_what_is_written_in_decimal_is_a_number(
    parse: Callable[..., yaml_document.YamlDocument], written: str, value: Any, spelling: str
) -> None:
    document = parse(f"a: {written}\n")
    assert document.data == {"a": value}
    assert type(document.data["a"]) is type(value)
    assert document.spelling(("a",)) == spelling
    assert document.faults == ()


def test_keys_are_text_however_yaml_reads_them(parse: Callable[..., yaml_document.YamlDocument]) -> None:
    assert parse("on: 1\n5: 2\n~: 3\n[a]: 4\n").data == {"on": 1, "5": 2, "~": 3, "a list": 4}


def test_a_key_that_occurs_twice_is_reported_with_both_lines(parse: Callable[..., yaml_document.YamlDocument]) -> None:
    (fault,) = parse("api:\n  qps: 1\n  timeout: 5\n  qps: 2\n").faults
    assert (
        f"{fault.line}: {fault}" == "4: api.qps: found a second time (the first is on line 2); allowed: each key once"
    )


@pytest.mark.parametrize(
    "written", ["!foo bar", "!!python/object:os.system x", "!!binary aGk=", "!!set {a, b}", "!x [1]"]
)
def test_tags_are_refused_and_nothing_is_made_of_them(
    parse: Callable[..., yaml_document.YamlDocument], written: str
) -> None:
    (fault,) = parse(f"a: 1\nb: {written}\n").faults
    assert (fault.line, fault.key, fault.allowed) == (2, "b", "values without tags")


def test_anchors_and_merge_keys_work_and_keep_their_lines(parse: Callable[..., yaml_document.YamlDocument]) -> None:
    document = parse(
        "base: &base {settle: 5s, type: 1}\nmore: &more\n  sync: 1\n  type: 0\n"
        "rules:\n- <<: *base\n  type: 0\n- <<: [*more, *base]\n- *base\n"
    )
    assert document.data["rules"] == [
        {"settle": "5s", "type": 0},
        {"sync": 1, "type": 0, "settle": "5s"},
        {"settle": "5s", "type": 1},
    ]
    assert document.line(("rules", 0, "settle")) == 1
    assert document.line(("rules", 1, "sync")) == 3


@pytest.mark.parametrize("merged", ["5", "[5]"])
def test_only_mappings_can_be_merged(parse: Callable[..., yaml_document.YamlDocument], merged: str) -> None:
    (fault,) = parse(f"a:\n  <<: {merged}\n").faults
    assert (fault.line, fault.key, fault.found) == (2, "a.<<", "5")


@pytest.mark.untraced
@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{n}: &{n} [{','.join(['*' + m] * 10)}]\n" for m, n in zip("abcde", "bcdef", strict=True)),
        "a: &a {x: 1}\n"
        + "".join(f"{n}: &{n} {{<<: [{','.join(['*' + m] * 30)}]}}\n" for m, n in zip("abcd", "bcde", strict=True)),
    ],
)
def test_aliases_cannot_multiply_without_end(parse: Callable[..., yaml_document.YamlDocument], text: str) -> None:
    assert "has more than 100000 values once its aliases are followed" in yaml_error(parse, text)


@pytest.mark.parametrize(
    "text", ["a: &a [*a]\n", "a: &a {b: *a}\n", "a: &a {<<: *a}\n", "a: " + "[" * 500 + "]" * 500, "[" * 50000]
)
def test_circles_and_deep_nests_are_refused(parse: Callable[..., yaml_document.YamlDocument], text: str) -> None:
    assert "is nested deeper than 20 levels" in yaml_error(parse, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: b: c\n", "c.yaml:1: column 5: is not YAML: mapping values are not allowed"),
        ("a:\n\t- b\n", "c.yaml:2: column 1: is not YAML: found character"),
        ("a: [1\nb: 2\n", "c.yaml:2: column"),
        ("a: *nobody\n", "c.yaml:1: column 4: is not YAML: found undefined alias"),
        ("a: 1\n---\nb: 2\n", "c.yaml:2: column 1: is not YAML: but found another document"),
        ("", "c.yaml: is empty"),
        ("# only a comment\n", "c.yaml: is empty"),
        ("- a\n", "c.yaml:1: found a list at the top; allowed: keys such as api: and rules:"),
        ("\nhello\n", 'c.yaml:2: found "hello" at the top'),
        (b"\xff\xfea\0:\0", "c.yaml:1: is not text in UTF-8"),
        (b"a: 1\nb: \xe4\n", "c.yaml:2: is not text in UTF-8"),
        (b"a: 1\nb: \0\n", "c.yaml:2: found the control character '\\x00'"),
        (b"\x89PNG\r\n\x1a\n", "c.yaml:1: is not text in UTF-8"),
        ("#" * (2**20 + 1), "c.yaml: is larger than 1048576 bytes"),
    ],
)
def test_a_file_that_is_no_configuration_is_reported_in_a_sentence(
    parse: Callable[..., yaml_document.YamlDocument], text: str | bytes, expected: str
) -> None:
    assert yaml_error(parse, text).startswith(expected)


def test_a_tab_is_named_as_the_culprit(parse: Callable[..., yaml_document.YamlDocument]) -> None:
    assert yaml_error(parse, "a:\n\tb: 1\n").endswith("; indent with spaces, not with tabs")


def test_a_byte_order_mark_is_no_fault(parse: Callable[..., yaml_document.YamlDocument]) -> None:
    assert parse(b"\xef\xbb\xbfa: 1\r\n").data == {"a": 1}


def test_unreadable_files_are_reported_without_blocking(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    expected = {
        tmp_path: "is a folder",
        pipe: "is not a regular file",
        tmp_path / "missing.yaml": "cannot be read: No such file or directory",
        tmp_path / "x" / "missing.yaml": "cannot be read: No such file or directory",
        Path("/nul\0"): "cannot be read: embedded null byte",
    }
    for file, reason in expected.items():
        with pytest.raises(ConfigError, match=reason):
            yaml_document.read_yaml(file)
