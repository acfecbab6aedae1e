"""What a command must not wait for: libraries that only the daemon needs."""

import subprocess
import sys

import pytest

_OF_THE_DAEMON = ("asyncio", "httpx", "PIL", "watchdog", "structlog", "pydantic")


@pytest.mark.parametrize("command", ["status", "jobs", "show", "spend"])
def test_a_command_that_only_looks_does_not_wait_for_the_libraries_of_the_daemon(command: str) -> None:
    look = f"import sys, picwish_watchd.cli, picwish_watchd.cli.{command}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout.split()
    assert f"picwish_watchd.cli.{command}" in loaded
    assert [library for library in _OF_THE_DAEMON if library in loaded] == []
