"""Which file is the configuration."""

from pathlib import Path

import pytest

from picwish_watchd.config import locate
from picwish_watchd.config.locate import find_config_file
from picwish_watchd.errors import ConfigError


@pytest.fixture
def search_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Create a configuration at every place that is searched and return the paths in order."""
    monkeypatch.setattr(locate, "SYSTEM_CONFIG", tmp_path / "etc" / "picwish-watchd" / "config.yaml")
    files = [
        tmp_path / "explicit.yaml",
        tmp_path / "environ.yaml",
        tmp_path / "cwd" / "picwish-watchd.yaml",
        tmp_path / "xdg" / "picwish-watchd" / "config.yaml",
        tmp_path / "etc" / "picwish-watchd" / "config.yaml",
    ]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return files


def test_the_places_are_tried_in_the_promised_order(search_paths: list[Path], tmp_path: Path) -> None:
    explicit, named, local, own, system = search_paths
    environ = {"PICWISH_WATCHD_CONFIG": str(named), "XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    assert find_config_file(explicit, environ, local.parent) == explicit
    assert find_config_file(None, environ, local.parent) == named
    environ["PICWISH_WATCHD_CONFIG"] = ""
    assert find_config_file(None, environ, local.parent) == local
    local.unlink()
    assert find_config_file(None, environ, local.parent) == own
    own.unlink()
    assert find_config_file(None, environ, local.parent) == system


def test_a_named_file_is_taken_even_if_it_is_missing_and_made_absolute(tmp_path: Path) -> None:
    assert find_config_file(Path("sub/../c.yaml"), {}, tmp_path) == tmp_path / "c.yaml"
    assert find_config_file(None, {"PICWISH_WATCHD_CONFIG": "c.yaml"}, tmp_path) == tmp_path / "c.yaml"


@pytest.mark.parametrize("xdg", [{}, {"XDG_CONFIG_HOME": ""}, {"XDG_CONFIG_HOME": "relative"}])
def test_without_a_usable_xdg_variable_dot_config_is_searched(
    search_paths: list[Path], tmp_path: Path, xdg: dict[str, str]
) -> None:
    own = tmp_path / "home" / ".config" / "picwish-watchd" / "config.yaml"
    own.parent.mkdir(parents=True)
    own.touch()
    assert find_config_file(None, {"HOME": str(tmp_path / "home"), **xdg}, tmp_path) == own


def test_a_dangling_link_is_found_and_not_passed_over(search_paths: list[Path], tmp_path: Path) -> None:
    (tmp_path / "picwish-watchd.yaml").symlink_to("gone.yaml")
    assert find_config_file(None, {}, tmp_path) == tmp_path / "picwish-watchd.yaml"


def test_a_missing_configuration_names_every_searched_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locate, "SYSTEM_CONFIG", tmp_path / "etc.yaml")
    with pytest.raises(ConfigError) as caught:
        find_config_file(None, {"HOME": "/home/ada"}, tmp_path)
    assert caught.value.message == (
        "no configuration file; looked for -c FILE, $PICWISH_WATCHD_CONFIG, "
        f"{tmp_path}/picwish-watchd.yaml, /home/ada/.config/picwish-watchd/config.yaml, {tmp_path}/etc.yaml"
    )
    with pytest.raises(ConfigError):
        find_config_file(None, {}, tmp_path)
