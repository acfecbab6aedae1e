"""`service`: a unit for this installation and configuration; another program's unit is never changed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from picwish_watchd.cli.main import main
from picwish_watchd.cli.systemd_unit import is_own_unit, quote_path
from picwish_watchd.errors import UsageError
from tests.support.systemd_units import check_unit

RULE = {"name": "a", "inbox": "/srv/nas/a/in", "outbox": "/srv/nas/a/out"}


def configure(folder: Path, *rules: dict[str, Any], **top: Any) -> Path:
    file = folder / "watchd.yaml"
    file.write_text(yaml.safe_dump({"rules": list(rules) or [RULE], **top}))
    return file


def run_service(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command that must succeed and return its standard output."""
    code = main(["service", *words])
    caught = capsys.readouterr()
    assert code == 0, caught.err
    return caught.out


def unit_values(unit: str, key: str) -> list[str]:
    return [line.partition("=")[2] for line in unit.splitlines() if line.startswith(f"{key}=")]


def test_the_unit_names_this_installation_configuration_key_and_user(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure(tmp_path, api={"key_file": "a.key"})
    unit = run_service(capsys, "show", "-c", str(config), "--user", "anna", "--group", "nas")
    program = Path(sys.executable).with_name("picwish-watchd")
    assert unit_values(unit, "ExecStart") == [f"{program} run --config {config}"]
    assert unit_values(unit, "LoadCredential") == [f"picwish_api_key:{tmp_path}/a.key"]
    assert (unit_values(unit, "User"), unit_values(unit, "Group")) == (["anna"], ["nas"])
    assert unit_values(unit, "StateDirectory") == ["picwish-watchd"]
    assert unit_values(unit, "ReadWritePaths") == ["-/srv/nas/a"]
    assert unit_values(unit, "RequiresMountsFor") == []


@pytest.mark.parametrize(
    ("rules", "entries"),
    [
        (
            [RULE, {"name": "b", "inbox": "/srv/b", "outbox": "/srv/c", "on_success": "move", "archive": "/srv/x"}],
            "-/srv",
        ),
        ([RULE, {"name": "b", "inbox": "/mnt/b", "outbox": "/mnt/c"}], "-/mnt -/srv/nas/a"),
        ([{"name": "a", "inbox": "/srv/in", "outbox": "/mnt/out"}], "-/mnt/out -/srv/in"),
        ([{"name": "a", "inbox": "/srv/my nas/in", "outbox": "/srv/my nas/50%"}], '"-/srv/my nas"'),
        (
            [
                {"name": "a", "inbox": "/home/anna/in", "outbox": "/home/anna/out"},
                {"name": "b", "inbox": "/home/ben/in", "outbox": "/home/ben/out"},
            ],
            "-/home/anna -/home/ben",
        ),
    ],
)
def test_the_folders_are_one_common_parent_or_the_fewest_that_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rules: list[dict[str, Any]], entries: str
) -> None:
    unit = run_service(capsys, "show", "-c", str(configure(tmp_path, *rules)))
    assert unit_values(unit, "ReadWritePaths") == [entries]


def test_a_link_is_followed_to_the_folder_that_is_written_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "scans").symlink_to(tmp_path / "disk")
    rule = {"name": "a", "inbox": str(tmp_path / "scans/in"), "outbox": str(tmp_path / "scans/out")}
    assert unit_values(run_service(capsys, "show", "-c", str(configure(tmp_path, rule))), "ReadWritePaths") == [
        f"-{tmp_path}/disk"
    ]


def test_a_folder_of_the_system_is_refused_with_a_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configure(tmp_path, {"name": "a", "inbox": "/home", "outbox": "/srv/out"})
    assert main(["service", "show", "-c", str(config)]) == 2
    caught = capsys.readouterr()
    assert caught.out == ""
    assert "/home" in caught.err
    assert "hint:" in caught.err


def test_a_journal_elsewhere_and_homes_are_opened_as_far_as_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = {"name": "a", "inbox": "/home/anna/in", "outbox": "/home/anna/out"}
    unit = run_service(capsys, "show", "-c", str(configure(tmp_path, rule, journal="/data/watchd/journal.db")))
    assert unit_values(unit, "ReadWritePaths") == ["-/home/anna -/data/watchd"]
    assert unit_values(unit, "StateDirectory") == []
    assert unit_values(unit, "ProtectHome") == ["read-only"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd on this machine")
def test_the_needs_of_metrics_and_notifications_are_detected_and_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notify = [
        {"to": "command", "run": ["/home/anna/bin/tell"]},
        {"to": "webhook", "url_file": str(tmp_path / "closed.url")},
    ]
    (tmp_path / "closed.url").write_text("https://x.org")
    (tmp_path / "closed.url").chmod(0o600)
    config = configure(tmp_path, notify=notify)
    folder = tmp_path / "units"
    folder.mkdir()
    assert main(["service", "install", "-c", str(config), "--unit-dir", str(folder), "--user", "nobody"]) == 0
    notes = capsys.readouterr().err
    assert f"cannot read {tmp_path}/closed.url (url_file): chgrp nobody it and chmod 0640 it" in notes
    assert f"LoadCredential=closed.url:{tmp_path}/closed.url" in notes
    assert "cannot reach /home/anna/bin/tell" in notes
    unit = (folder / "picwish-watchd.service").read_text()
    assert unit_values(unit, "ProtectHome") == ["read-only"]


def test_what_is_installed_is_sound_and_exposes_little(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rule = {"name": "a", "inbox": '/srv/my "odd" $nas;/100%/in', "outbox": '/srv/my "odd" $nas;/100%/out'}
    odd = tmp_path / 'a $b "c" 5%'
    odd.mkdir()
    config = configure(odd, rule, api={"key_file": "my 5% key"})
    run_service(capsys, "install", "-c", str(config), "--unit-dir", str(tmp_path), "--name", "odd.one")
    check_unit(tmp_path / "odd.one.service")


def test_install_can_be_repeated_and_uninstall_removes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, unit = configure(tmp_path), tmp_path / "picwish-watchd.service"
    place = ("--unit-dir", str(tmp_path))
    shown_unit = run_service(capsys, "show", "-c", str(config))
    for _ in range(2):
        assert str(unit) in run_service(capsys, "install", "-c", str(config), *place)
        assert unit.read_text() == shown_unit
    assert is_own_unit(shown_unit)
    assert str(unit) in run_service(capsys, "uninstall", *place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["watchd.yaml"]


def test_a_dry_run_prints_everything_and_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, place = configure(tmp_path), ("--unit-dir", str(tmp_path), "--dry-run")
    assert run_service(capsys, "install", "-c", str(config), *place) == run_service(capsys, "show", "-c", str(config))
    assert [path.name for path in tmp_path.iterdir()] == ["watchd.yaml"]


@pytest.mark.parametrize("change", ["[Service]\nExecStart=/bin/true\n", None])
def test_a_unit_that_is_not_ours_or_was_changed_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str | None
) -> None:
    config, unit = configure(tmp_path), tmp_path / "picwish-watchd.service"
    place = ("--unit-dir", str(tmp_path))
    run_service(capsys, "install", "-c", str(config), *place)
    unit.write_text(change or unit.read_text().replace("WatchdogSec=120", "WatchdogSec=20"))
    before = unit.read_text()
    for words in (["install", "-c", str(config)], ["uninstall"]):
        assert main(["service", *words, *place]) == 2
        caught = capsys.readouterr()
        assert "left as it is" in caught.err
        assert "systemctl edit" in caught.err
    assert unit.read_text() == before


def test_a_pipe_in_the_place_of_a_unit_is_left_alone_and_not_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "picwish-watchd.service")
    assert main(["service", "install", "-c", str(configure(tmp_path)), "--unit-dir", str(tmp_path)]) == 2
    assert "left as it is" in capsys.readouterr().err


def test_a_service_may_be_named_as_its_file_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ("--unit-dir", str(tmp_path), "--name", "two.service")
    run_service(capsys, "install", "-c", str(configure(tmp_path)), *place)
    assert (tmp_path / "two.service").exists()
    run_service(capsys, "uninstall", *place)
    assert not (tmp_path / "two.service").exists()


def test_an_enabled_service_is_not_uninstalled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ("--unit-dir", str(tmp_path))
    run_service(capsys, "install", "-c", str(configure(tmp_path)), *place)
    wants = tmp_path / "multi-user.target.wants"
    wants.mkdir()
    (wants / "picwish-watchd.service").symlink_to(tmp_path / "picwish-watchd.service")
    assert main(["service", "uninstall", *place]) == 2
    assert "systemctl disable --now picwish-watchd" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["uninstall", "--unit-dir", "/nowhere"],
        ["uninstall", "--name", "../x"],
        ["install", "--unit-dir", ".", "--name", "a" * 256],
        ["install", "--unit-dir", ".", "--name=-now"],
        ["install", "--unit-dir", ".", "--name", ".."],
        ["install", "--user", "a b"],
        ["install", "--unit-dir", "/nowhere"],
    ],
)
def test_an_impossible_request_is_refused_with_a_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main(["service", *words, "-c", str(configure(tmp_path))]) == 2
    caught = capsys.readouterr()
    assert "hint:" in caught.err
    assert "unexpected" not in caught.err


@pytest.mark.skipif(Path("/run/systemd/system").is_dir(), reason="systemd runs this machine")
def test_without_systemd_it_prints_an_alternative(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["service", "install", "-c", str(configure(tmp_path))]) == 2
    assert "picwish-watchd run" in capsys.readouterr().err


def test_without_the_right_it_names_the_command_with_sudo(tmp_path: Path) -> None:
    config, place = configure(tmp_path), tmp_path / "units"
    place.mkdir(mode=0o500)
    words = [sys.executable, "-m", "picwish_watchd", "service", "install", "-c", str(config), "--unit-dir", str(place)]
    drop = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"] if shutil.which("setpriv") else []
    process = subprocess.run([*drop, *words], capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert "sudo " in process.stderr


@pytest.mark.parametrize("path", ["/srv/a\nExecStart=/bin/sh", "/srv/\udcff"])
def test_no_path_can_smuggle_a_line_into_a_unit(path: str) -> None:
    with pytest.raises(UsageError):
        quote_path(path)
