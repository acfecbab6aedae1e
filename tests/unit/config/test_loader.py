"""A complete file: every key, every default, every error with its line."""

import contextlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from picwish_watchd.config.fields import Section
from picwish_watchd.config.loader import load_config
from picwish_watchd.config.model import Config
from picwish_watchd.config.schema import (
    Api,
    Budget,
    Charging,
    General,
    IfExists,
    Log,
    LogFormat,
    LogLevel,
    ObserverKind,
    OnFailure,
    OnSuccess,
    Rule,
)
from picwish_watchd.errors import ConfigError

MINIMAL = "rules:\n- {name: scans, inbox: in, outbox: out}\n"
EXAMPLE = Path(__file__).parents[3] / "config.example.yaml"

EVERY_KEY = """\
api:
  base_url: http://nas.local:8080/picwish/
  key_file: api.key
  key: ${KEY}
  qps: 10
  max_pending: 160
  timeout: 30
  max_bytes: 50MB
  max_side: 8192
  task_timeout: 1h
  allow_insecure: true
journal: ~/j.db
charging: at-least-once
max_attempts: 5
retry_backoff: 500ms
keep: 90d
defaults:
  type: 1
  archive: done
rules:
- name: all
  inbox: ${NAS}/in
  outbox: ../out
  type: 0
  return_type: 2
  sync: 1
  priority: -7
  recursive: no
  include: ["*.png"]
  exclude: ["x*"]
  settle: 0
  settle_timeout: 1m
  observer: polling
  rescan_interval: 5
  follow_symlinks: yes
  filename: "{name}/{stem}.{ext}"
  if_exists: skip
  file_mode: 0600
  on_success: move
  on_failure: move
  failed: bad
  sidecar: on
log: {level: debug, format: json}
"""


def test_three_keys_of_one_rule_are_enough(load_text: Callable[..., Config], tmp_path: Path) -> None:
    assert load_text(MINIMAL) == Config(
        api=Api(),
        journal=Path("/var/lib/picwish-watchd/journal.db"),
        charging=Charging.AT_MOST_ONCE,
        budget=Budget(),
        min_free=256 * 2**20,
        max_attempts=3,
        retry_backoff=2.0,
        keep=400 * 86400.0,
        rules=(Rule(name="scans", inbox=tmp_path / "in", outbox=tmp_path / "out"),),
        log=Log(level=LogLevel.INFO, format=LogFormat.AUTO),
        path=tmp_path / "config.yaml",
        warnings=(),
    )


def test_every_key_reaches_its_field(load_text: Callable[..., Config], tmp_path: Path) -> None:
    config = load_text(EVERY_KEY, {"NAS": "/srv/nas", "HOME": "/home/ada", "KEY": "s3cret"})
    assert config.api == Api(
        base_url="http://nas.local:8080/picwish",
        key_file=tmp_path / "api.key",
        key=config.api.key,
        qps=10.0,
        max_pending=160,
        timeout=30.0,
        max_bytes=50_000_000,
        max_side=8192,
        task_timeout=3600.0,
        allow_insecure=True,
    )
    assert config.api.key is not None
    assert config.api.key.get_secret_value() == "s3cret"
    assert (config.journal, config.charging) == (Path("/home/ada/j.db"), Charging.AT_LEAST_ONCE)
    assert (config.max_attempts, config.retry_backoff, config.keep) == (5, 0.5, 90 * 86400.0)
    assert config.log == Log(level=LogLevel.DEBUG, format=LogFormat.JSON)
    (rule,) = config.rules
    assert rule == Rule(
        name="all",
        inbox=Path("/srv/nas/in"),
        outbox=tmp_path.parent / "out",
        type=0,
        return_type=2,
        sync=1,
        priority=-7,
        recursive=False,
        include=("*.png",),
        exclude=("x*",),
        settle=0.0,
        settle_timeout=60.0,
        observer=ObserverKind.POLLING,
        rescan_interval=5.0,
        follow_symlinks=True,
        filename="{name}/{stem}.{ext}",
        if_exists=IfExists.SKIP,
        file_mode=0o600,
        on_success=OnSuccess.MOVE,
        archive=tmp_path / "done",
        on_failure=OnFailure.MOVE,
        failed=tmp_path / "bad",
        sidecar=True,
    )


def test_the_inline_key_never_shows(load_text: Callable[..., Config]) -> None:
    config = load_text("api: {key: s3cret}\n" + MINIMAL)
    assert "s3cret" not in repr(config) + str(config) + str(config.warnings)


def test_an_inline_key_and_plain_http_warn(load_text: Callable[..., Config], tmp_path: Path) -> None:
    config = load_text("api:\n  key: s3cret\n  base_url: http://nas\n  allow_insecure: true\n" + MINIMAL)
    assert [warning.removeprefix(f"{tmp_path}/config.yaml:")[:13] for warning in config.warnings] == [
        "2: api.key: t",
        "3: api.base_u",
    ]


def test_a_configuration_is_frozen(load_text: Callable[..., Config]) -> None:
    config = load_text(MINIMAL)
    with pytest.raises(ValueError, match="frozen"):
        config.rules[0].name = "other"  # type: ignore[misc]
    assert hash(config) == hash(load_text(MINIMAL))


def test_sections_whose_keys_are_all_commented_out_are_as_good_as_none(load_text: Callable[..., Config]) -> None:
    assert load_text("api:\nlog:\ndefaults:\n" + MINIMAL) == load_text(MINIMAL)


def test_defaults_hold_for_all_rules_and_rules_win(load_text: Callable[..., Config], tmp_path: Path) -> None:
    config = load_text(
        "defaults: {settle: 9s, outbox: out}\nrules:\n- {name: a, inbox: a}\n- {name: b, inbox: b, settle: 1s}\n"
    )
    assert [(rule.settle, rule.outbox) for rule in config.rules] == [(9.0, tmp_path / "out"), (1.0, tmp_path / "out")]


def config_with_key(key: str, written: str) -> str:
    """Return a configuration with one key of its only rule, on line 5, set to this text."""
    settings = {"name": "scans", "inbox": "/in", "outbox": "/out"}
    lines = [f"  {k}: {v}" for k, v in settings.items() if k != key]
    return "\n".join(["rules:", "-", *lines, *[""] * (3 - len(lines)), f"  {key}: {written}\n"])


RULE_FAULTS = [
    ("name", "a b", 'found "a b"; allowed: a name of the characters A-Z, a-z, 0-9, _ and -'),
    ("name", "no", "found no (false to YAML; put it in quotes if it is a word); allowed: text; put it in quotes"),
    ("name", "2024", "found 2024; allowed: text; put it in quotes"),
    ("name", "", "found nothing; allowed: text"),
    ("inbox", "~", "found ~ (nothing to YAML; put it in quotes); allowed: text"),
    (
        "inbox",
        "${NAS}/in",
        'found "${NAS}/in"; allowed: a variable that is set; NAS is not set, or empty, in the environment',
    ),
    ("outbox", "[a]", "found a list; allowed: text"),
    ("type", "2", "found 2; allowed: 0 or 1"),
    ("type", "true", "found true; allowed: 0 or 1"),
    ("return_type", "0", "found 0; allowed: 1 or 2"),
    ("sync", '"1"', 'found "1"; allowed: 0 or 1'),
    ("priority", "high", 'found "high"; allowed: a whole number'),
    ("priority", "1.5", "found 1.5; allowed: a whole number"),
    ("recursive", "1", "found 1; allowed: true or false"),
    ("recursive", '"yes"', 'found "yes"; allowed: true or false'),
    ("include", "'*.jpg'", 'found "*.jpg"; allowed: a list, such as ["*.jpg", "*.png"]'),
    ("include", "[]", "found an empty list; allowed: a list with at least one entry"),
    ("include", "{a: b}", 'found a mapping; allowed: a list, such as ["*.jpg", "*.png"]'),
    (
        "settle",
        "2 parsecs",
        'found "2 parsecs"; allowed: a duration such as 500ms, 2s, 5m, 1h, 7d, or a number of seconds; 0 or more',
    ),
    ("settle", "-1", "found -1; allowed: a duration 0 or more, at most 3650d"),
    ("settle", ".nan", "found .nan; allowed: a duration such as"),
    ("settle_timeout", "12:30", "found 12:30 (a number to base 60 to YAML); allowed: a duration such as"),
    ("settle_timeout", "1e3", 'found "1e3" (text to YAML; write the number out); allowed: a duration such as'),
    ("settle_timeout", "1s", "found 1s, less than settle (2s); allowed: a duration that is not shorter than settle"),
    ("rescan_interval", "0", "found 0; allowed: a duration above 0, at most 3650d"),
    ("observer", "inotify", 'found "inotify"; allowed: auto, native, polling'),
    ("observer", "pollling", 'found "pollling"; did you mean "polling"? allowed: auto, native, polling'),
    ("follow_symlinks", "maybe", 'found "maybe"; allowed: true or false'),
    ("filename", '"{stm}.jpg"', 'found "{stm}.jpg"; did you mean "{stem}"? allowed: the fields {stem}, {ext}, {name}'),
    ("filename", "../{stem}", 'found "../{stem}"; allowed: a name below the outbox, without ..'),
    ("if_exists", "Overwrite", 'found "Overwrite"; did you mean "overwrite"? allowed: rename, overwrite, skip'),
    ("file_mode", "644", 'found 644; allowed: an octal mode in quotes, such as "0644" or "0640"; "0000" to "0777"'),
    ("on_success", "off", "found off (false to YAML; put it in quotes if it is a word); allowed: keep, move, delete"),
    (
        "on_success",
        "move",
        'found move, but rule "scans" has no archive folder; allowed: keep, or move together with archive: FOLDER',
    ),
    (
        "on_failure",
        "move",
        'found move, but rule "scans" has no failed folder; allowed: keep, or move together with failed: FOLDER',
    ),
    ("on_failure", "delete", 'found "delete"; allowed: keep, move'),
    ("archive", "3", "found 3; allowed: text; put it in quotes"),
    ("failed", "''", 'found ""; allowed: text'),
    ("sidecar", "json", 'found "json"; allowed: true or false'),
    ("oversize", "shrink", 'found "shrink"; allowed: '),
    ("setle", "2s", 'found an unknown key; did you mean "settle"? allowed: archive,'),
]


@pytest.mark.parametrize(("key", "written", "expected"), RULE_FAULTS)
def test_a_fault_in_a_rule_has_line_key_found_and_allowed(
    config_errors: Callable[..., list[str]], key: str, written: str, expected: str
) -> None:
    (fault,) = config_errors(config_with_key(key, written))
    assert fault.startswith(f"6: rules[0].{key}: {expected}")


FAULTS = [
    ("api:\n  base_url: techhk", 2, 'api.base_url: found "techhk"; allowed: a URL such as https://techhk.aoscdn.com'),
    (
        "api:\n  base_url: https://u:pw@h",
        2,
        "api.base_url: found a URL with a user name or a password; allowed: a URL without them",
    ),
    (
        "api:\n  base_url: http://nas",
        2,
        "api.base_url: found http to another host, which sends the key unencrypted; allowed: https",
    ),
    ("api:\n  qps: 0", 2, "api.qps: found 0; allowed: a number above 0, at most 1000"),
    ("api:\n  qps: 010", 2, "api.qps: found 010 (not a decimal number to YAML); allowed: a number above 0"),
    ("api:\n  max_pending: 0", 2, "api.max_pending: found 0; allowed: auto, or a whole number of at least 1"),
    ("api:\n  timeout: 0s", 2, 'api.timeout: found "0s"; allowed: a duration above 0, at most 3650d'),
    ("api:\n  max_bytes: 30mb", 2, 'api.max_bytes: found "30mb"; allowed: a size such as 30MB, 30MiB'),
    ("api:\n  max_side: 4096px", 2, 'api.max_side: found "4096px"; allowed: a whole number of at least 1'),
    ("api:\n  task_timeout: soon", 2, 'api.task_timeout: found "soon"; allowed: a duration such as'),
    ("api:\n  key: 12345678", 2, "api.key: found a value that is not shown here; allowed: text; put it in quotes"),
    ("api:\n  key: ${NONE}", 2, "api.key: found a value that is not shown here; allowed: a variable that is set; NONE"),
    (
        "api:\n  api_key: s3cret",
        2,
        'api.api_key: found an unknown key; did you mean "key"? allowed: allow_insecure, base_url,',
    ),
    ("api:\n  allow_insecure: 1", 2, "api.allow_insecure: found 1; allowed: true or false"),
    ("api: s3cret", 1, "api: found a single value; allowed: a mapping: indented lines of KEY: VALUE"),
    ("api: [s3cret]", 1, "api: found a list; allowed: a mapping"),
    ("journal: 5", 1, "journal: found 5; allowed: text; put it in quotes"),
    (
        "journal: /in/journal.db",
        1,
        'journal: found /in/journal.db, which is inside the inbox of rule "scans"; allowed: a path',
    ),
    (
        "charging: at-most-one",
        1,
        'charging: found "at-most-one"; did you mean "at-most-once"? allowed: at-most-once, at-least-once',
    ),
    ("max_attempts: 0", 1, "max_attempts: found 0; allowed: a whole number of at least 1"),
    (
        "keep: 30d",
        1,
        'keep: found "30d"; allowed: forever, or a duration such as 400d; at least 32d, at most 3650d',
    ),
    ("retry_backoff: 10m", 1, 'retry_backoff: found "10m"; allowed: a duration above 0, at most 5m'),
    ("budget: {per_day: -5}", 1, "budget.per_day: found -5; allowed: a whole number of credits, 0 or more"),
    ("budget: {per_month: 1e3}", 1, "budget.per_month: found"),
    ("budget: {perday: 5}", 1, 'budget.perday: found an unknown key; did you mean "per_day"? allowed: burst'),
    ("budget: {burst: {images: 5}}", 1, "budget.burst.per: found nothing; allowed: within which time, such as 10m"),
    ("budget: {burst: {images: 0, per: 1m}}", 1, "budget.burst.images: found 0; allowed: a whole number of at least 1"),
    ("min_free: lots", 1, 'min_free: found "lots"; allowed: a size such as 30MB'),
    ("path: /x", 1, "path: found an unknown key; allowed: api, budget, charging"),
    ("chargin: x", 1, 'chargin: found an unknown key; did you mean "charging"? allowed: api, budget, charging'),
    ('"a\\e[31m": x', 1, "a\\x1b[31m: found an unknown key; allowed: api"),
    ("log:\n  level: verbose", 2, 'log.level: found "verbose"; allowed: debug, info, warning, error'),
    ("log:\n  format: yaml", 2, 'log.format: found "yaml"; allowed: auto, console, json'),
    ("log: debug", 1, "log: found a single value; allowed: a mapping"),
    (
        "defaults:\n  name: x",
        2,
        "defaults.name: found a key that no two rules can share; allowed: under each rule only",
    ),
    (
        "defaults:\n  setle: 5s",
        2,
        'defaults.setle: found an unknown key; did you mean "settle"? allowed: archive, exclude,',
    ),
    ("defaults:\n  settle: soon", 2, 'defaults.settle: found "soon"; allowed: a duration'),
    (
        "defaults:\n  on_success: move",
        2,
        'defaults.on_success: found move, but rule "scans" has no archive folder; allowed: keep',
    ),
    ("defaults: []", 1, "defaults: found a list; allowed: a mapping"),
    (
        "charging: !!python/none x",
        1,
        'charging: found the tag "tag:yaml.org,2002:python/none"; allowed: values without tags',
    ),
    (
        "journal: a.db\njournal: b.db",
        2,
        "journal: found a second time (the first is on line 1); allowed: each key once",
    ),
]


@pytest.mark.parametrize(("text", "line", "expected"), FAULTS)
def test_a_fault_outside_the_rules_is_reported_once_with_its_line(
    config_errors: Callable[..., list[str]], text: str, line: int, expected: str
) -> None:
    faults = config_errors(text + "\nrules:\n- {name: scans, inbox: /in, outbox: /out}\n")
    assert "s3cret" not in "".join(faults)
    assert any(fault.startswith(f"{line}: {expected}") for fault in faults), faults
    assert len(faults) == 1 or "charging" in text


@pytest.mark.parametrize("text", ["journal: /j.db\n", "rules:\n", "rules: []\n", "rules: {}\n", "rules: scans\n"])
def test_a_configuration_has_at_least_one_rule(config_errors: Callable[..., list[str]], text: str) -> None:
    (fault,) = config_errors(text)
    assert re.fullmatch(r'1: rules: found .+; allowed: a list of at least one rule, "- name: ..."', fault)


def test_a_rule_that_is_no_mapping_is_a_fault_and_the_others_are_validated(
    config_errors: Callable[..., list[str]],
) -> None:
    assert [
        fault.split(";")[0] for fault in config_errors("rules:\n- scans\n- {name: a, inbox: /a, outbox: /a}\n")
    ] == [
        "2: rules[0]: found a single value",
        '3: rules[1].outbox: found /a, which is the inbox of rule "a" (/a)',
    ]


def test_all_faults_are_reported_at_once_sorted_by_line(config_errors: Callable[..., list[str]]) -> None:
    faults = config_errors(
        "log: {level: x}\nrules:\n- name: a\n  inbox: /a\n  setle: 2s\n  type: 9\n"
        "- name: a\n  inbox: /a/b\n  outbox: /a/c\napi:\n  qps: -1\n  base_url: http://nas\njournal: /a/j\n"
    )
    assert [fault.split(": found")[0] for fault in faults] == [
        "1: log.level",
        "3: rules[0].outbox",
        "5: rules[0].setle",
        "6: rules[0].type",
        "7: rules[1].name",
        "8: rules[1].inbox",
        "9: rules[1].outbox",
        "11: api.qps",
        "12: api.base_url",
        "13: journal",
    ]


def test_a_missing_key_is_reported_with_its_purpose(config_errors: Callable[..., list[str]]) -> None:
    assert config_errors("rules:\n- {}\n") == [
        "2: rules[0].inbox: found nothing; allowed: the folder that is watched",
        "2: rules[0].name: found nothing; allowed: a name, such as scans",
        "2: rules[0].outbox: found nothing; allowed: the folder that results go to",
    ]


def test_a_wrong_default_is_reported_once_and_not_for_each_rule(config_errors: Callable[..., list[str]]) -> None:
    text = "defaults:\n  outbox: 5\n  include: [1]\nrules:\n- {name: a, inbox: /a}\n- {name: b, inbox: /b}\n"
    assert [fault.split(";")[0] for fault in config_errors(text)] == [
        "2: defaults.outbox: found 5",
        "3: defaults.include[0]: found 1",
    ]


def test_a_wrong_value_causes_no_follow_up_error(
    config_errors: Callable[..., list[str]],
) -> None:
    text = (
        "rules:\n- {name: a, inbox: /a, outbox: /o, on_success: move, archive: 5}\n- {name: 5, inbox: ~, outbox: ~}\n"
    )
    assert [fault.split(": found")[0] for fault in config_errors(text)] == [
        "2: rules[0].archive",
        "3: rules[1].inbox",
        "3: rules[1].name",
        "3: rules[1].outbox",
    ]


def test_errors_of_the_file_itself_come_through(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yaml: cannot be read: No such file"):
        load_config(tmp_path / "missing.yaml", {})


def test_a_remembered_rule_reads_back_to_itself() -> None:
    odd = Rule(
        name="a",
        inbox=Path("/a\udcff/${X}/~"),
        outbox=Path("/o"),
        archive=Path("/ä"),
        file_mode=0o640,
        exclude=("x",),
        on_success=OnSuccess.MOVE,
    )
    for rule in (odd, Rule(name="b", inbox=Path("/b"), outbox=Path("/o"), file_mode=0)):
        assert Rule.from_json(rule.to_json()) == rule
        assert rule.to_json().isascii()


def test_a_rule_remembered_by_another_version_is_read_as_far_as_it_is_known() -> None:
    assert Rule.from_json('{"name": "a", "inbox": "/a", "outbox": "/o", "colour": 1}').settle == 2.0


@pytest.mark.parametrize("remembered", ["", "[]", "5", '{"name": "a"}', '{"name": "a", "inbox": "in", "outbox": "/o"}'])
def test_an_invalid_remembered_rule_is_reported_in_our_own_words(remembered: str) -> None:
    with pytest.raises(ConfigError, match=r"^a remembered rule cannot be read") as caught:
        Rule.from_json(remembered)
    assert "pydantic" not in caught.value.message
    assert "\n" not in caught.value.message


YAML_VALUES = st.sampled_from(
    [
        "5",
        "-1",
        "1.5",
        "x",
        "''",
        "~",
        "true",
        "no",
        "[]",
        "[1]",
        "[[a]]",
        "{}",
        "{a: b}",
        ".nan",
        "0644",
        "12:30",
        "1e3",
        "!x y",
        "${X}",
        "~",
        "~root",
        "99999999999999999999",
        "2s",
        "5MB",
        "http://[",
        "{stem",
        "/",
        ".",
        "*x",
        "&x y",
        "\t",
        "\\",
    ]
)
KEYS_BY_SECTION: dict[str, type[Section]] = {"api.": Api, "log.": Log, "rules": Rule, "defaults": Rule, "": General}


@pytest.mark.untraced
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_of_any_key_is_accepted_or_refused_in_our_own_words(tmp_path: Path, data: st.DataObject) -> None:
    section = data.draw(st.sampled_from(sorted(KEYS_BY_SECTION)))
    key = data.draw(st.sampled_from(sorted(KEYS_BY_SECTION[section].model_fields)))
    written = f"{key}: {data.draw(YAML_VALUES)}"
    text = {
        "api.": f"api:\n  {written}\n{MINIMAL}",
        "log.": f"log:\n  {written}\n{MINIMAL}",
        "rules": f"rules:\n- name: b\n  inbox: /b\n  outbox: /o\n-\n  {written}\n",
        "defaults": f"defaults:\n  {written}\n{MINIMAL}",
        "": f"{written}\n{MINIMAL}",
    }[section]
    file = tmp_path / "c.yaml"
    file.write_text(text)
    try:
        load_config(file, {})
    except ConfigError as error:
        for line in error.message.splitlines():
            assert re.search(r"c\.yaml:\d+: (.+: found .+[;?] allowed: .+|column \d+: is not YAML: .+)", line), line
            assert "Input should" not in line


@pytest.mark.untraced
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_mangled_file_raises_anything_but_a_config_error(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from([EVERY_KEY.encode(), EXAMPLE.read_bytes()])))
    for _ in range(data.draw(st.integers(1, 8))):
        start = data.draw(st.integers(0, len(content)))
        junk = data.draw(
            st.sampled_from([b"", b"\n", b": ", b"- ", b"*a", b"&a ", b"!", b"<<: ", b"{", b"]", b"\t", b"'"])
        )
        content[start : start + data.draw(st.integers(0, 12))] = junk
    file = tmp_path / "c.yaml"
    file.write_bytes(content)
    with contextlib.suppress(ConfigError):
        load_config(file, {"NAS": "/nas", "HOME": "/h", "KEY": "k"})


@pytest.mark.untraced
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60) | st.text("ab:-*&!<>{}[]|#%@`?, \n\t'\"0.~", max_size=60).map(str.encode))
def test_no_junk_raises_anything_but_a_config_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError):
        load_config(file, {})
