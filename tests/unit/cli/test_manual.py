"""The manual page and the completions agree with ``--help``."""

import argparse
import subprocess
import sys
from collections.abc import Iterator

import pytest

from picwish_watchd.cli.arguments import COMMANDS, build_parser
from picwish_watchd.cli.main import main
from tests.support.render_manual import SHELLS, render_texts


def list_command_line_words() -> Iterator[str]:
    """Return every command, long option and choice."""
    yield from COMMANDS
    for action in build_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                for option in sub._actions:
                    yield from (each for each in option.option_strings if each.startswith("--") and each != "--help")
                    yield from map(str, option.choices or ())


def run_command(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    assert main(command) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", [["manual"], *(["completion", shell] for shell in SHELLS)], ids=" ".join)
def test_every_command_and_option_is_in_the_manual(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    text = run_command(capsys, *command).replace("\\-", "-")
    missing = [word for word in list_command_line_words() if word not in text and word.removeprefix("--") not in text]
    assert not missing


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse words its help otherwise in other versions")
def test_what_is_shipped_is_what_is_made_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    fresh = render_texts()
    assert run_command(capsys, "manual") == fresh["picwish-watchd.1"], "run: python -m tests.support.render_manual"
    for shell in SHELLS:
        assert run_command(capsys, "completion", shell) == fresh[f"completion.{shell}"], (
            "run: python -m tests.support.render_manual"
        )


def test_bash_completes_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    ask = "COMP_WORDS=(picwish-watchd stat); COMP_CWORD=1; _shtab_picwish_watchd; echo ${COMPREPLY[@]}"
    script = f"{run_command(capsys, 'completion', 'bash')}\n{ask}\n"
    completions = subprocess.run(["bash"], input=script, capture_output=True, text=True, check=True)
    assert completions.stdout.split() == ["status"]
