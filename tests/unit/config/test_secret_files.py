"""Secret files: read in one way, redacted from then on, and passed by systemd where it does that."""

import os
from pathlib import Path

import pytest

from picwish_watchd.cli.main import print_error
from picwish_watchd.config.secret_files import SecretFile
from picwish_watchd.errors import ConfigError
from picwish_watchd.redaction import redact, register_secret


def make_secret_file(path: Path, text: str, mode: int = 0o600) -> SecretFile:
    path.write_text(text)
    path.chmod(mode)
    return SecretFile(path, "password_file", "the password file", "put the password alone into it")


@pytest.mark.parametrize("kind", ["missing", "a folder", "a pipe", "open to others", "large"])
def test_a_file_that_is_not_private_is_refused_with_a_hint(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "p"
    file = make_secret_file(
        path, "s3cret" * (1000 if kind == "large" else 1), 0o644 if kind == "open to others" else 0o600
    )
    if kind in ("missing", "a folder", "a pipe"):
        path.unlink()
    if kind == "a folder":
        path.mkdir(mode=0o700)
    if kind == "a pipe":
        os.mkfifo(path, 0o600)
    with pytest.raises(ConfigError) as caught:
        file.read({})
    assert caught.value.message.startswith(f"the password file {path} ")
    assert caught.value.hint
    assert "s3cret" not in f"{caught.value.message} {caught.value.hint}"


def test_a_secret_is_redacted_alone_and_within_other_text(tmp_path: Path) -> None:
    file = make_secret_file(tmp_path / "p", "hunter2\nhunter2-longer\n# note\n\nab\n")
    assert file.read_lines({}) == [(1, "hunter2"), (2, "hunter2-longer"), (5, "ab")]
    assert redact("535 hunter2-longer or hunter2 is wrong, about") == "535 *** or *** is wrong, about"


def test_a_secret_is_a_single_word(tmp_path: Path) -> None:
    assert make_secret_file(tmp_path / "p", "s3cret\r\n").read_secret({}) == "s3cret"
    for text in ("two words", "", "pässword", "\ufeffs3cret"):
        with pytest.raises(ConfigError):
            make_secret_file(tmp_path / "p", text).read_secret({})


def test_a_systemd_credential_of_the_files_name_is_read_instead(tmp_path: Path) -> None:
    handed = tmp_path / "credentials"
    handed.mkdir()
    file = make_secret_file(tmp_path / "p", "from the file")
    environ = {"CREDENTIALS_DIRECTORY": str(handed)}
    assert file.read(environ) == "from the file"
    make_secret_file(handed / "p", "from systemd", 0o400)
    assert file.read(environ) == "from systemd"
    file.path.unlink()
    assert file.read(environ) == "from systemd"


def test_secrets_stay_redacted_and_short_words_do_not() -> None:
    assert register_secret("abc") == "abc"
    register_secret("first-key")
    register_secret("second-key")
    assert redact("abc first-key second-key") == "abc *** ***"


def test_no_error_message_quotes_a_secret(capsys: pytest.CaptureFixture[str]) -> None:
    register_secret("s3cret-key")
    assert print_error(ConfigError("it said s3cret-key", hint="look for s3cret-key")) == 78
    assert "s3cret" not in capsys.readouterr().err
