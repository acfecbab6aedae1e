"""Fixtures that load a short text as the configuration file."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from picwish_watchd.config.loader import load_config
from picwish_watchd.config.model import Config
from picwish_watchd.errors import ConfigError


@pytest.fixture
def load_text(tmp_path: Path) -> Callable[..., Config]:
    """Return a function that loads a text as the configuration file in `tmp_path`."""

    def load(text: str, environ: Mapping[str, str] | None = None) -> Config:
        file = tmp_path / "config.yaml"
        file.write_text(text, encoding="utf-8")
        return load_config(file, environ or {})

    return load


@pytest.fixture
def config_errors(load_text: Callable[..., Config], tmp_path: Path) -> Callable[..., list[str]]:
    """Return a function that loads a faulty configuration and returns its errors: ``LINE: KEY: found ...``, no file."""

    def faults_of(text: str, environ: Mapping[str, str] | None = None) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load_text(text, environ)
        assert caught.value.exit_code == 78
        return [line.removeprefix(f"{tmp_path}/config.yaml:") for line in caught.value.message.splitlines()]

    return faults_of
