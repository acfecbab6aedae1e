"""What the documents show is true: configuration, defaults, commands, options, events, links, the systemd unit."""

import argparse
import ast
import importlib.util
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from picwish_watchd.cli.arguments import COMMANDS, build_parser
from picwish_watchd.cli.systemd_unit import SHIPPED_TEMPLATE_UNIT, SHIPPED_UNIT
from picwish_watchd.config.fields import Section
from picwish_watchd.config.loader import load_config
from picwish_watchd.config.notifiers import NOTIFIER_TYPES, Notifier
from picwish_watchd.config.schema import Api, Budget, Burst, General, Http, Log, Rule
from picwish_watchd.job import UNSUCCESSFUL, ErrorCode, OriginalStatus
from picwish_watchd.state import ALLOWED_TRANSITIONS, State
from tests.support import fork_server
from tests.support.systemd_units import check_unit

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "picwish_watchd"
README = (ROOT / "README.md").read_text()
TOP_LEVEL = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
DOCUMENTS = {path: path.read_text() for path in (*TOP_LEVEL, *sorted((ROOT / "docs").glob("*.md")))}
IDS = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
COMMANDS_PAGE, CONFIGURATION_PAGE, EVENTS_PAGE, TROUBLESHOOTING_PAGE = (
    (ROOT / "docs" / f"{name}.md").read_text() for name in ("commands", "configuration", "events", "troubleshooting")
)

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=IDS)


def marked_command(name: str) -> str:
    """The command in the README below its mark."""
    found = re.search(rf"<!-- command: {name} -->\n```sh\n(.*?)\n```", README, re.DOTALL)
    assert found, name
    return found[1]


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a document in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def section(text: str, heading: str) -> str:
    """The text of a document below a heading, up to the next heading of the same or a higher level."""
    level = heading.partition(" ")[0]
    below = text.partition(f"\n{heading}\n")[2]
    assert below, f"there is no heading {heading!r}"
    return re.split(rf"^#{{1,{len(level)}}} ", below, maxsplit=1, flags=re.MULTILINE)[0]


# Configuration


def test_the_example_loads_as_it_stands_and_shows_every_key() -> None:
    example = ROOT / "config.example.yaml"
    config = load_config(example, {})
    assert config.warnings == ()
    text = example.read_text()
    sections: tuple[type[Section], ...] = (Api, Budget, Burst, General, Http, Log, Rule, *NOTIFIER_TYPES.values())
    for model in sections:
        for key in model.model_fields:
            assert re.search(rf"(^[\s#-]*|[{{,] ?){key}:", text, re.MULTILINE), f"{key} is not shown"


@each_document
def test_the_configurations_in_the_documents_load(document: Path, tmp_path: Path) -> None:
    for number, block in enumerate(blocks(DOCUMENTS[document], "yaml")):
        file = tmp_path / f"{number}.yaml"
        file.write_text(block)
        assert load_config(file, {}).rules


#: Heading in docs/configuration.md -> model, and an example for each key that is required.
TABLES: dict[str, tuple[type[Section], dict[str, object]]] = {
    "## `api`: PicWish and the key": (Api, {}),
    "## Top level: journal, charging, retries": (General, {}),
    "## `budget`": (Budget, {}),
    "### `budget.burst`": (Burst, {"images": 500, "per": "10m"}),
    "## `defaults` and `rules`": (Rule, {"name": "scans", "inbox": "/in", "outbox": "/out"}),
    "## `http`": (Http, {"listen": "127.0.0.1:9107"}),
    "## `log`": (Log, {}),
    "### `to: webhook`": (NOTIFIER_TYPES["webhook"], {"to": "webhook"}),
    "### `to: command`": (NOTIFIER_TYPES["command"], {"to": "command", "run": ["/bin/true"]}),
    "### `to: email`": (
        NOTIFIER_TYPES["email"],
        {"to": "email", "server": "smtp.example.org", "sender": "a@example.org", "recipients": ["b@example.org"]},
    ),
    "### `to: apprise`": (NOTIFIER_TYPES["apprise"], {"to": "apprise", "urls_file": "/apprise.urls"}),
}


def documented_keys(heading: str) -> dict[str, str]:
    """Key -> default, as the tables below a heading of docs/configuration.md show them."""
    text = section(CONFIGURATION_PAGE, heading)
    text = text if heading == "## `defaults` and `rules`" else re.split(r"^###", text, flags=re.MULTILINE)[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.+?) \| .+ \|$", text, re.MULTILINE))


@pytest.mark.parametrize("heading", TABLES)
def test_the_configuration_page_shows_every_key_with_its_default(heading: str) -> None:
    model, required = TABLES[heading]
    found = documented_keys(heading)
    if issubclass(model, Notifier):
        found |= documented_keys("## `notify`")
    assert found.keys() == model.model_fields.keys()
    assert {key for key, default in found.items() if default == "required"} == required.keys()
    shown = {key: yaml.safe_load(default.strip("`")) for key, default in found.items() if default.startswith("`")}
    plain = model.model_validate(required)
    assert model.model_validate({**required, **shown}) == plain
    absent = {key for key, default in found.items() if default == "none"}
    assert {key: getattr(plain, key) for key in absent} == dict.fromkeys(absent)
    assert len(required) + len(shown) + len(absent) == len(found), "each default is a value, none, or required"


# The README and its commands


def test_the_readme_fits_on_one_screen() -> None:
    assert len(README.splitlines()) <= 120


def test_the_first_command_installs_and_runs_the_demo() -> None:
    *_, run = marked_command("demo").split("&&")
    program, *arguments = shlex.split(run)
    assert program == ".venv/bin/picwish-watchd"
    demo = subprocess.run(
        [sys.executable, "-m", "picwish_watchd", *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert demo.returncode == 0, demo.stderr
    folder = Path(demo.stdout.rstrip().rpartition(" ")[2])
    try:
        assert "25 credits would have been paid" in demo.stdout
        last = [line for line in demo.stderr.splitlines() + demo.stdout.splitlines() if line.startswith("5 of 5")]
        assert last == ["5 of 5: 5 done"], "there is no forecast for what is done"
        assert len([path for path in (folder / "outbox").rglob("*") if path.is_file()]) == 5
    finally:
        shutil.rmtree(folder)


def test_on_a_terminal_of_eighty_columns_the_demo_cuts_nothing_off(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    environ = {**os.environ, "TMPDIR": str(tmp_path), "TERM": "xterm", "COLUMNS": "80"}
    demo = [sys.executable, "-m", "picwish_watchd", "demo"]
    with subprocess.Popen(demo, stdin=slave, stdout=slave, stderr=slave, env=environ) as child:
        os.close(slave)
        output = b""
        # EIO: the other side is closed
        with suppress(OSError):
            while block := os.read(master, 65536):
                output += block
        os.close(master)
    assert child.returncode == 0
    shown = output.decode()
    assert "…" not in shown, "the words beside the bar end with the cost"
    (folder,) = tmp_path.iterdir()
    results = [str(path.relative_to(folder)) for path in folder.glob("outbox/**/*") if path.is_file()]
    assert len(results) == 5
    assert [result for result in results if result not in shown] == [], "folded"


def test_the_second_command_runs_this_very_suite() -> None:
    *_, run = marked_command("tests").split("&&")
    assert shlex.split(run) == [".venv/bin/python", "-m", "tests"]
    assert (ROOT / "tests/__main__.py").exists()


# Commands


def options_of(command: str) -> set[str]:
    """The options that the parser takes for a command, without --help."""
    (commands,) = (a for a in build_parser(command)._actions if isinstance(a, argparse._SubParsersAction))
    options = {option for action in commands.choices[command]._actions for option in action.option_strings}
    return options - {"-h", "--help"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented_with_its_options_and_explains_itself(command: str) -> None:
    text = section(COMMANDS_PAGE, f"## `{command}`")
    assert {option for option in options_of(command) if f"`{option}" not in text} == {"-c", "--config"}
    assert [block for block in blocks(text, "sh") if f"picwish-watchd {command}" in block], "it has an example"
    shown = fork_server.run_fork(command, "--help")
    assert (shown.returncode, "--config" in shown.stdout) == (0, True)


def test_the_commands_page_documents_no_other_commands() -> None:
    assert set(re.findall(r"^## `([a-z]+)`$", COMMANDS_PAGE, re.MULTILINE)) == set(COMMANDS)


@each_document
def test_every_command_that_a_document_names_exists_with_its_options(document: Path) -> None:
    for code in re.findall(r"`([^`\n]+)`", DOCUMENTS[document]):
        program, _, rest = code.rpartition("picwish-watchd ")
        command, *words = rest.split()
        if command.islower() and (command in COMMANDS or ("picwish-watchd " in code and not program)):
            assert command in COMMANDS, code
            options = {word for word in words if re.fullmatch("--?[a-z][a-z-]*", word)}
            assert options <= options_of(command) | {"-h", "--help"}, code


def shown_calls(text: str) -> Iterator[list[str]]:
    """The arguments of each call of picwish-watchd in the sh blocks of a document."""
    for line in "".join(blocks(text, "sh")).replace("\\\n", " ").splitlines():
        tokens = shlex.shlex(line, posix=True, punctuation_chars=True)
        tokens.whitespace_split = True
        words = list(tokens)
        ends = [place for place, word in enumerate(words) if set(word) <= set("();<>|&")]
        for begin, end in zip([0, *(place + 1 for place in ends)], [*ends, len(words)], strict=True):
            if words[begin:end] and Path(words[begin]).name == "picwish-watchd" and words[begin - 1] not in (">", ">>"):
                yield words[begin + 1 : end]


@each_document
def test_the_program_understands_every_call_that_a_document_shows(document: Path) -> None:
    for call in shown_calls(DOCUMENTS[document]):
        if call != ["--version"]:
            assert build_parser().parse_args(call).command in COMMANDS


def test_the_calls_of_the_readme_are_found() -> None:
    calls = [" ".join(call) for call in shown_calls(README)]
    assert calls == ["demo", "check", "plan", "run --once", "run", "status"]


# Events and error codes

#: Names of events that the code makes at run time, and the values that they get there.
MADE_NAMES = {
    "job.{state}": {f"job.{state}" for state in UNSUCCESSFUL},
    "original.{original}": {f"original.{each}" for each in OriginalStatus if each is not OriginalStatus.WAITING},
}
EVENT = re.compile(r"[a-z]+\.[a-z_]+")


def logged_events() -> set[str]:
    """The names of all events that the code logs."""
    found: set[str] = set()
    for file in PACKAGE.rglob("*.py"):
        tree = ast.parse(file.read_text())
        for name in (call.args[0] for call in ast.walk(tree) if isinstance(call, ast.Call) and is_log_call(call)):
            match name:
                case ast.Constant(value=str(event)):
                    found.add(event)
                case ast.JoinedStr():
                    found |= MADE_NAMES[ast.unparse(name)[2:-1]]
                case _:
                    # a parameter: the callers in the same file give it
                    found |= passed_events(tree)
    return found


def is_log_call(call: ast.Call) -> bool:
    """Whether it logs an event: ``log.info("job.queued", ...)``."""
    levels = {"debug", "info", "warning", "error", "exception"}
    return isinstance(call.func, ast.Attribute) and call.func.attr in levels and bool(call.args)


def passed_events(tree: ast.AST) -> set[str]:
    """The arguments of calls that look like the name of an event."""
    arguments = [each for call in ast.walk(tree) if isinstance(call, ast.Call) for each in call.args]
    texts = [each.value for each in arguments if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    return {text for text in texts if EVENT.fullmatch(text)}


def test_every_event_of_the_log_is_explained_and_every_explained_event_exists() -> None:
    rows = re.findall(r"^\| (`.+?`) \| (debug|info|warning|error) \| .+ \|$", EVENTS_PAGE, re.MULTILINE)
    explained = [name for cell, _ in rows for name in re.findall(r"`([^`]+)`", cell)]
    assert len(explained) == len(set(explained)) > 50
    assert set(explained) == logged_events()


@each_document
def test_every_event_that_a_document_names_is_one_of_the_log(document: Path) -> None:
    events = logged_events()
    # `journal.db` and `http.listen` are no events
    sections = {"budget", "config", "http", "journal", "log", "notify"}
    areas = {event.partition(".")[0] for event in events} - sections
    named = {word for word in re.findall(r"`([^`\s]+)`", DOCUMENTS[document]) if EVENT.fullmatch(word)}
    assert {word for word in named if word.partition(".")[0] in areas} <= events


def test_every_error_code_is_explained() -> None:
    text = section(TROUBLESHOOTING_PAGE, "## Error codes")
    assert {code for code in ErrorCode if f"`{code}`" not in text} == set()


# Links


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a document."""
    outside = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", outside, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_document
def test_every_link_in_a_document_leads_somewhere(document: Path) -> None:
    outside = re.sub(r"^```.*?^```", "", DOCUMENTS[document], flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)]+)\)", outside):
        if link.startswith("https://"):
            continue
        place, _, anchor = link.partition("#")
        target = (document.parent / place).resolve() if place else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_the_index_lists_every_document() -> None:
    index = (ROOT / "docs/README.md").read_text()
    assert [path.name for path in (ROOT / "docs").glob("*.md") if f"({path.name})" not in index] == ["README.md"]


# The systemd unit

UNITS = {"picwish-watchd.service": SHIPPED_UNIT, "picwish-watchd@.service": SHIPPED_TEMPLATE_UNIT}


@pytest.mark.parametrize("name", UNITS)
def test_the_shipped_units_are_what_the_template_says(name: str) -> None:
    assert (ROOT / "systemd" / name).read_text() == UNITS[name].render()


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
    finished = subprocess.run(
        ["systemd-tmpfiles", f"--root={tmp_path}", "--create", str(ROOT / "systemd/picwish-watchd.tmpfiles.conf")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    assert key.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="no systemd on this machine")
def test_the_shipped_sysusers_file_is_sound(tmp_path: Path) -> None:
    file = ROOT / "systemd/picwish-watchd.sysusers.conf"
    finished = subprocess.run(
        ["systemd-sysusers", f"--root={tmp_path}", "--dry-run", str(file)], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert "picwish" in finished.stderr


@pytest.mark.parametrize("name", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_every_file_that_a_developer_document_names_exists(name: str) -> None:
    paths = re.findall(r"`((?:[a-z_]+/)*[a-z_]+(?:/|\.py|\.md|\.yaml))`", (ROOT / name).read_text())
    assert len(paths) > 10
    missing = [path for path in paths if not ((ROOT / path).exists() or (ROOT / "picwish_watchd" / path).exists())]
    assert missing == []


def test_every_make_target_that_a_document_names_exists() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"(?:`|^)make ([a-z]+)", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert len(named) > 4
    assert set(named) <= set(targets)


def test_every_hook_before_a_commit_runs_a_tool_of_the_development_environment() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    for hook in hooks:
        program, option, module, *_ = hook["entry"].split()
        assert (program, option) == (".venv/bin/python", "-m")
        assert importlib.util.find_spec(module) is not None


def test_every_transition_in_the_document_on_architecture_is_allowed() -> None:
    table = section((ROOT / "docs/architecture.md").read_text(), "## States of a job")
    rows = [[re.findall(r"`([a-z]+)`", cell) for cell in line.split("|")[1:3]] for line in table.splitlines()]
    moves = {(before, after) for row in rows if len(row) == 2 for before in row[0] for after in row[1]}
    assert len(moves) > 25
    assert [move for move in moves if State(move[1]) not in ALLOWED_TRANSITIONS[State(move[0])]] == []
