"""Sources of the API key, and what is refused."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from picwish_watchd.config.api_key import read_api_key
from picwish_watchd.config.model import Config
from picwish_watchd.errors import ConfigError

RULES = "rules:\n- {name: scans, inbox: /in, outbox: /out}\n"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "api.key"
    file.write_text("from-file\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def config_with_key_file(load_text: Callable[..., Config]) -> Config:
    return load_text("api: {key_file: api.key}\n" + RULES)


def read_key_error(config: Config, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        read_api_key(config, environ or {})
    assert caught.value.hint
    return f"{caught.value.message} | {caught.value.hint}"


def test_the_first_source_that_is_there_wins(load_text: Callable[..., Config], key_file: Path, tmp_path: Path) -> None:
    everything = load_text("api: {key_file: api.key, key: inline}\n" + RULES)
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "picwish_api_key").write_text("from-credential")
    (credentials / "picwish_api_key").chmod(0o400)
    environ = {"CREDENTIALS_DIRECTORY": str(credentials), "PICWISH_API_KEY": "from-environment"}
    assert read_api_key(everything, environ) == "from-credential"
    (credentials / "picwish_api_key").unlink()
    assert read_api_key(everything, environ) == "from-environment"
    assert read_api_key(everything, {}) == "from-file"
    assert read_api_key(load_text("api: {key: inline}\n" + RULES), {}) == "inline"


def test_without_a_key_the_error_lists_its_sources(load_text: Callable[..., Config]) -> None:
    message = read_key_error(load_text(RULES))
    for source in ("no API key", "credential picwish_api_key", "PICWISH_API_KEY", "api.key_file"):
        assert source in message


@pytest.mark.parametrize(("content", "key"), [("k3y", "k3y"), ("k3y\n", "k3y"), ("k3y\r\n\n", "k3y"), ("!~", "!~")])
def test_a_final_line_break_is_dropped(config_with_key_file: Config, key_file: Path, content: str, key: str) -> None:
    key_file.write_text(content)
    assert read_api_key(config_with_key_file, {}) == key


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400, 0o660])
def test_a_key_file_for_owner_and_group_is_fine(config_with_key_file: Config, key_file: Path, mode: int) -> None:
    key_file.chmod(mode)
    assert read_api_key(config_with_key_file, {}) == "from-file"


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o777])
def test_a_key_file_that_others_can_read_is_refused(config_with_key_file: Config, key_file: Path, mode: int) -> None:
    key_file.chmod(mode)
    message = read_key_error(config_with_key_file)
    assert f"{key_file} can be read by others (mode {mode:04o}) | chmod 0640 {key_file}, or 0600" in message


@pytest.mark.parametrize(
    "content",
    [b"two words", b" k3y", b"k3y ", b"a\nb", b"k3y\0", b"k\xc3\xa9y", b"\xef\xbb\xbfk3y", b"\xff", b"a\tb", b"\x7f"],
)
def test_what_cannot_be_sent_in_a_header_is_refused_and_not_shown(
    config_with_key_file: Config, key_file: Path, content: bytes
) -> None:
    key_file.write_bytes(content)
    message = read_key_error(config_with_key_file)
    assert "has white space, control characters or characters outside ASCII" in message
    assert "k3y" not in message
    assert "two" not in message


@pytest.mark.parametrize("content", ["", "\n", "\r\n"])
def test_an_empty_key_file_is_refused(config_with_key_file: Config, key_file: Path, content: str) -> None:
    key_file.write_text(content)
    assert f"the key file {key_file} is empty" in read_key_error(config_with_key_file)


def test_an_empty_variable_is_not_passed_over_for_the_file(config_with_key_file: Config, key_file: Path) -> None:
    assert "$PICWISH_API_KEY is empty" in read_key_error(config_with_key_file, {"PICWISH_API_KEY": ""})


def test_a_variable_that_is_no_header_value_is_refused(config_with_key_file: Config) -> None:
    assert "$PICWISH_API_KEY has white space" in read_key_error(config_with_key_file, {"PICWISH_API_KEY": "\udcff"})


def test_a_credentials_folder_without_our_credential_is_passed_over(
    config_with_key_file: Config, key_file: Path, tmp_path: Path
) -> None:
    assert read_api_key(config_with_key_file, {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == "from-file"


def test_a_missing_key_file_is_reported(config_with_key_file: Config, tmp_path: Path) -> None:
    assert f"the key file {tmp_path}/api.key cannot be opened: No such file or directory" in read_key_error(
        config_with_key_file
    )


def test_a_key_file_that_is_too_large_is_refused(config_with_key_file: Config, key_file: Path) -> None:
    key_file.write_text("k" * 4096)
    assert read_api_key(config_with_key_file, {}) == "k" * 4096
    key_file.write_text("k" * 4097)
    assert "is larger than 4096 bytes" in read_key_error(config_with_key_file)


def test_pipes_folders_and_devices_are_refused_without_blocking(
    load_text: Callable[..., Config], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "pipe", tmp_path / "folder", Path("/dev/null")):
        assert f"the key file {path} is not a regular file" in read_key_error(
            load_text(f"api: {{key_file: {path}}}\n{RULES}")
        )


def test_a_key_file_whose_reading_fails_is_reported(load_text: Callable[..., Config]) -> None:
    # fstat reports a regular file, and reading it is an I/O error, because it is address 0 of our own memory.
    message = read_key_error(load_text(f"api: {{key_file: /proc/self/mem}}\n{RULES}"))
    assert "the key file /proc/self/mem cannot be read: Input/output error" in message
