"""Where metrics are served: on this machine only, or to clients with a token."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from picwish_watchd.config.model import Config
from picwish_watchd.config.schema import Http
from picwish_watchd.config.strings import ListenAddress
from picwish_watchd.errors import ConfigError

RULES = "rules:\n- {name: scans, inbox: /in, outbox: /out}\n"


def load_http(loaded: Callable[..., Config], text: str) -> Http:
    config = loaded(f"http: {text}\n{RULES}")
    assert config.http is not None
    return config.http


@pytest.mark.parametrize(
    ("written", "address", "shown"),
    [
        ("127.0.0.1:9107", ListenAddress("127.0.0.1", 9107), "127.0.0.1:9107"),
        ("127.9.9.9:1", ListenAddress("127.9.9.9", 1), "127.9.9.9:1"),
        ("localhost:9107", ListenAddress("127.0.0.1", 9107), "127.0.0.1:9107"),
        ('"[::1]:9107"', ListenAddress("::1", 9107), "[::1]:9107"),
        ("127.0.0.1:0", ListenAddress("127.0.0.1", 0), "127.0.0.1:0"),
    ],
)
def test_an_address_of_this_machine_needs_no_token(
    load_text: Callable[..., Config], written: str, address: ListenAddress, shown: str
) -> None:
    http = load_http(load_text, f"{{listen: {written}}}")
    assert (http.listen, http.token_file) == (address, None)
    assert str(http.listen) == shown
    assert http.token_secret is None


@pytest.mark.parametrize("written", ["0.0.0.0:9107", '"[::]:9107"', "192.168.1.5:80", '"[fe80::1]:9107"'])
def test_an_address_that_others_reach_needs_a_token(
    load_text: Callable[..., Config], config_errors: Callable[..., list[str]], written: str
) -> None:
    [fault] = config_errors(f"http: {{listen: {written}}}\n{RULES}")
    assert fault.startswith("1: http.listen: found ")
    assert "no token_file" in fault
    assert load_http(load_text, f"{{listen: {written}, token_file: t}}").token_file is not None


@pytest.mark.parametrize(
    "written",
    [
        "9107",
        '":9107"',
        '"127.0.0.1"',
        '"127.0.0.1:"',
        '"127.0.0.1:70000"',
        '"::1:9107"',
        '"nas.local:9107"',
        "null",
        '"[127:1"',
        '"127.0.0.1:-1"',
        '"127.0.0.1:http"',
        "true",
        "[]",
    ],
)
def test_what_is_no_address_is_refused_with_an_example(config_errors: Callable[..., list[str]], written: str) -> None:
    [fault] = config_errors(f"http: {{listen: {written}}}\n{RULES}")
    assert fault.startswith("1: http.listen: found ")


def test_an_empty_http_section_serves_nothing_and_a_partial_one_is_an_error(
    load_text: Callable[..., Config], config_errors: Callable[..., list[str]]
) -> None:
    assert load_text(RULES).http is None
    assert load_text(f"http:\n{RULES}").http is None
    assert config_errors(f"http: {{token_file: t}}\n{RULES}") == [
        "1: http.listen: found nothing; allowed: where to listen, such as 127.0.0.1:9107"
    ]
    assert "an unknown key" in config_errors(f"http: {{listen: 127.0.0.1:1, tokn_file: t}}\n{RULES}")[0]


def test_without_the_library_the_error_says_how_to_install_it(
    load_text: Callable[..., Config], config_errors: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert load_text(RULES).http is None
    [fault] = config_errors(f"{RULES}http:\n  listen: 127.0.0.1:9107\n")
    assert fault.startswith("3: http: ")
    assert "pip install 'picwish-watchd[metrics]'" in fault


@pytest.mark.parametrize(
    ("content", "mode", "expected"),
    [
        ("s3cret\n", 0o644, "can be read by others"),
        ("", 0o600, "is empty"),
        ("s3cret word", 0o600, "white space"),
        ("x" * 5000, 0o600, "larger than"),
        (None, 0, "cannot be opened"),
    ],
)
def test_a_token_file_is_validated_like_the_key_file(
    load_text: Callable[..., Config], tmp_path: Path, content: str | None, mode: int, expected: str
) -> None:
    http = load_http(load_text, "{listen: 0.0.0.0:9107, token_file: t}")
    if content is not None:
        (tmp_path / "t").write_text(content)
        (tmp_path / "t").chmod(mode)
    assert http.token_secret is not None
    with pytest.raises(ConfigError, match=expected) as caught:
        http.token_secret.read_secret()
    assert caught.value.message.startswith(f"the token file {tmp_path}/t")
    assert caught.value.hint
    assert "s3cret" not in caught.value.message + caught.value.hint


def test_a_token_is_read_without_its_line_break(load_text: Callable[..., Config], tmp_path: Path) -> None:
    (tmp_path / "t").write_text("s3cret\n")
    (tmp_path / "t").chmod(0o640)
    token = load_http(load_text, "{listen: 127.0.0.1:1, token_file: t}").token_secret
    assert token is not None
    assert token.read_secret() == "s3cret"
