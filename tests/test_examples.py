"""What the documents show must work: the example configuration, the README's commands, the systemd unit."""

import ast
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from picwish_watchd.cli.arguments import COMMANDS
from picwish_watchd.cli.systemd_unit import SHIPPED, SHIPPED_TEMPLATE
from picwish_watchd.config.fields import Section
from picwish_watchd.config.loader import load
from picwish_watchd.config.notifiers import KINDS
from picwish_watchd.config.schema import Api, Budget, Burst, General, Http, Log, Rule
from tests.support import forks
from tests.support.units import check_unit

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def extract_command(name: str) -> str:
    """The command that stands in README under its mark."""
    found = re.search(rf"<!-- command: {name} -->\n```sh\n(.*?)\n```", README, re.DOTALL)
    assert found, name
    return found[1]


def test_the_example_loads_as_it_stands_and_shows_every_key() -> None:
    example = ROOT / "config.example.yaml"
    config = load(example, {})
    assert config.warnings == ()
    text = example.read_text()
    sections: tuple[type[Section], ...] = (Api, Budget, Burst, General, Http, Log, Rule, *KINDS.values())
    for section in sections:
        for key in section.model_fields:
            assert re.search(rf"(^[\s#-]*|[{{,] ?){key}:", text, re.MULTILINE), f"{key} is not shown"


def test_every_event_of_the_log_is_explained_in_the_readme() -> None:
    levels = {"debug", "info", "warning", "error", "exception"}
    calls = [
        node
        for file in (ROOT / "picwish_watchd").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in levels
        and node.args
    ]
    names = {str(call.args[0].value) for call in calls if isinstance(call.args[0], ast.Constant)}
    assert len(names) > 30
    assert not [name for name in names if f"`{name}`" not in README]


def test_the_configuration_in_the_readme_loads(tmp_path: Path) -> None:
    for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)):
        file = tmp_path / f"{number}.yaml"
        file.write_text(block)
        assert load(file, {}).rules


def test_the_first_command_installs_and_runs_the_demo() -> None:
    *_, run = extract_command("demo").split("&&")
    program, *arguments = shlex.split(run)
    assert program == ".venv/bin/picwish-watchd"
    told = subprocess.run(
        [sys.executable, "-m", "picwish_watchd", *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert told.returncode == 0, told.stderr
    folder = Path(told.stdout.rstrip().rpartition(" ")[2])
    try:
        assert "25 credits would have been paid" in told.stdout
        last = [line for line in told.stderr.splitlines() + told.stdout.splitlines() if line.startswith("5 of 5")]
        assert last == ["5 of 5: 5 done"], "nothing is foretold of what is done"
        assert len([path for path in (folder / "outbox").rglob("*") if path.is_file()]) == 5
    finally:
        shutil.rmtree(folder)


def test_on_a_terminal_of_eighty_columns_the_demo_cuts_nothing_off(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    environ = {**os.environ, "TMPDIR": str(tmp_path), "TERM": "xterm", "COLUMNS": "80"}
    demo = [sys.executable, "-m", "picwish_watchd", "demo"]
    with subprocess.Popen(demo, stdin=slave, stdout=slave, stderr=slave, env=environ) as child:
        os.close(slave)
        told = b""
        # EIO: nobody has the other side open any more
        with suppress(OSError):
            while block := os.read(master, 65536):
                told += block
        os.close(master)
    assert child.returncode == 0
    shown = told.decode()
    assert "…" not in shown, "the end of the words beside the bar is what all costs"
    (folder,) = tmp_path.iterdir()
    results = [str(path.relative_to(folder)) for path in folder.glob("outbox/**/*") if path.is_file()]
    assert len(results) == 5
    assert [result for result in results if result not in shown] == [], "folded"


def test_the_readmes_second_command_runs_this_suite() -> None:
    *_, run = extract_command("tests").split("&&")
    assert shlex.split(run) == [".venv/bin/python", "-m", "tests"]
    assert (ROOT / "tests/__main__.py").exists()


def test_every_command_is_in_the_readme_and_explains_itself() -> None:
    for command in COMMANDS:
        assert re.search(rf"(`|picwish-watchd ){command}\b", README), command
        told = forks.run_fork(command, "--help")
        assert (told.returncode, "--config" in told.stdout) == (0, True), command


def test_every_command_that_the_readme_names_exists() -> None:
    for command in re.findall(r"`picwish-watchd ([a-z]+)", README):
        assert command in COMMANDS


UNITS = {"picwish-watchd.service": SHIPPED, "picwish-watchd@.service": SHIPPED_TEMPLATE}


@pytest.mark.parametrize("name", UNITS)
def test_the_shipped_units_are_what_the_template_says(name: str) -> None:
    assert (ROOT / "systemd" / name).read_text() == UNITS[name].text()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd on this machine")
@pytest.mark.parametrize("name", UNITS)
def test_the_shipped_units_are_sound_and_expose_little(name: str, tmp_path: Path) -> None:
    unit = tmp_path / name
    text = (ROOT / "systemd" / name).read_text()
    unit.write_text(text.replace("/opt/picwish-watchd/bin/picwish-watchd", sys.executable))
    check_unit(unit)


@pytest.mark.skipif(os.geteuid() != 0, reason="systemd-tmpfiles gives files to root")
@pytest.mark.skipif(shutil.which("systemd-tmpfiles") is None, reason="no systemd on this machine")
def test_the_shipped_tmpfiles_close_the_keys_to_others(tmp_path: Path) -> None:
    folder = tmp_path / "etc/picwish-watchd"
    folder.mkdir(parents=True)
    key = folder / "api.key"
    key.write_text("k")
    key.chmod(0o644)
    told = subprocess.run(
        ["systemd-tmpfiles", f"--root={tmp_path}", "--create", str(ROOT / "systemd/picwish-watchd.tmpfiles.conf")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (told.returncode, told.stderr) == (0, "")
    assert key.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="no systemd on this machine")
def test_the_shipped_sysusers_file_is_sound(tmp_path: Path) -> None:
    file = ROOT / "systemd/picwish-watchd.sysusers.conf"
    told = subprocess.run(
        ["systemd-sysusers", f"--root={tmp_path}", "--dry-run", str(file)], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    assert "picwish" in told.stderr
