"""What a command must not wait for: libraries that only the daemon needs."""

import subprocess
import sys

import pytest

from picwish_watchd.cli.arguments import COMMANDS, parser
from picwish_watchd.cli.main import main

_OF_THE_DAEMON = ("asyncio", "httpx", "PIL", "watchdog", "structlog", "pydantic")
_OF_THE_LOOP = ("asyncio", "httpx", "h11", "watchdog", "structlog", "rich")


@pytest.mark.parametrize("command", ["status", "jobs", "show", "spend"])
def test_a_command_that_only_looks_does_not_wait_for_the_libraries_of_the_daemon(command: str) -> None:
    look = f"import sys, picwish_watchd.cli, picwish_watchd.cli.commands.{command}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout.split()
    assert f"picwish_watchd.cli.commands.{command}" in loaded
    assert [library for library in _OF_THE_DAEMON if library in loaded] == []


@pytest.mark.untraced  # the tracer would load them itself
def test_status_loads_neither_yaml_nor_what_makes_dataclasses() -> None:
    """Each takes a quarter of the time that `status` has beside a daemon."""
    look = "import sys, picwish_watchd.cli, picwish_watchd.cli.commands.status; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout.split()
    assert [library for library in ("yaml", "dataclasses", "inspect", "statistics") if library in loaded] == []


def test_a_command_that_looks_at_folders_waits_for_nothing_that_only_the_daemon_does_with_them() -> None:
    commands = ", ".join(f"picwish_watchd.cli.commands.{name}" for name in ("why", "plan", "retry"))
    look = f"import sys, {commands}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout.split()
    assert [library for library in _OF_THE_LOOP if library in loaded] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_line_that_is_made_for_one_command_says_of_it_what_the_whole_one_says(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []
    for made in (parser(), parser(command)):
        with pytest.raises(SystemExit):
            made.parse_args([command, "--help"])
        told.append(capsys.readouterr())
    assert told[0] == told[1]


@pytest.mark.parametrize(
    "words", [["--help"], ["-h"], ["nonsense"], ["-c", "x", "status"], ["status", "--nonsense"], []]
)
def test_what_is_told_of_all_commands_does_not_depend_on_how_much_was_made(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    told = []
    for judge in (parser().parse_args, main):
        with pytest.raises(SystemExit) as ended:
            judge(words)
        told.append((ended.value.code, capsys.readouterr()))
    assert told[0] == told[1]
