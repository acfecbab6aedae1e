"""Libraries that only the daemon needs are not loaded by other commands."""

import subprocess
import sys

import pytest

from picwish_watchd.cli.arguments import COMMANDS, build_parser
from picwish_watchd.cli.main import main

_DAEMON_LIBRARIES = ("asyncio", "httpx", "PIL", "watchdog", "structlog", "pydantic")
_LOOP_LIBRARIES = ("asyncio", "httpx", "h11", "watchdog", "structlog", "rich")


@pytest.mark.parametrize("command", ["status", "jobs", "show", "spend"])
def test_a_read_only_command_loads_no_daemon_libraries(command: str) -> None:
    look = f"import sys, picwish_watchd.cli.main, picwish_watchd.cli.commands.{command}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout.split()
    assert f"picwish_watchd.cli.commands.{command}" in loaded
    assert [library for library in _DAEMON_LIBRARIES if library in loaded] == []


# The coverage tracer would load these modules itself.
@pytest.mark.untraced
def test_status_loads_neither_yaml_nor_what_makes_dataclasses() -> None:
    """Each would take a quarter of the time of `status` beside a daemon."""
    look = "import sys, picwish_watchd.cli.main, picwish_watchd.cli.commands.status; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout.split()
    assert [library for library in ("yaml", "dataclasses", "inspect", "statistics") if library in loaded] == []


def test_why_plan_and_retry_load_no_event_loop_libraries() -> None:
    commands = ", ".join(f"picwish_watchd.cli.commands.{name}" for name in ("why", "plan", "retry"))
    look = f"import sys, {commands}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout.split()
    assert [library for library in _LOOP_LIBRARIES if library in loaded] == []


@pytest.mark.untraced
def test_the_command_line_itself_does_not_load_typing() -> None:
    """It would take a sixth of the time of `--help`."""
    modules = []
    for imports in ("argparse, functools, gc, importlib, io, os, pathlib", "picwish_watchd.cli.main"):
        code = f"import {imports}, sys; print(*sys.modules)"
        loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        modules.append(set(loaded.split()))
    assert "typing" not in modules[1] - modules[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_single_command_parser_has_the_help_of_the_full_parser(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = []
    for parser in (build_parser(), build_parser(command)):
        with pytest.raises(SystemExit):
            parser.parse_args([command, "--help"])
        outputs.append(capsys.readouterr())
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize(
    "words", [["--help"], ["-h"], ["nonsense"], ["-c", "x", "status"], ["status", "--nonsense"], []]
)
def test_the_overall_help_does_not_depend_on_which_parser_was_built(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = []
    for parse in (build_parser().parse_args, main):
        with pytest.raises(SystemExit) as error:
            parse(words)
        outputs.append((error.value.code, capsys.readouterr()))
    assert outputs[0] == outputs[1]
