"""`status` beside a real daemon is fast and reports the same facts with either source of the configuration."""

import asyncio
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from picwish_watchd.cli.main import main
from picwish_watchd.cli.progress import ProgressReporter, cancel_and_wait
from picwish_watchd.config.loader import load_config
from picwish_watchd.config.model import Config
from picwish_watchd.daemon.daemon import Daemon
from picwish_watchd.errors import ConfigError
from tests.support.harness import KEY, Harness, wait_until

_RUN_PROGRAM = """import sys
from picwish_watchd.cli.main import main
code = main(sys.argv[1:])
print("pydantic" in sys.modules, file=sys.stderr)
sys.exit(code)"""


async def _run_status(file: Path) -> tuple[str, bool]:
    """Run `status --json` and return its report and whether it loaded the configuration file itself."""
    command = [sys.executable, "-c", _RUN_PROGRAM, "status", "--json", "-c", str(file)]
    process = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    return process.stdout, process.stderr.endswith("True\n")


async def test_status_agrees_whether_it_reads_the_daemon_or_the_file(harness: Harness) -> None:
    harness.top_level = {"budget": {"per_day": 500}}
    harness.more_rules = [{"name": "Fotos", "inbox": "Müller ☃", "type": 1, "sync": 1}]
    (harness.root / "Müller ☃").mkdir()
    harness.drop_file("a.jpg")
    daemon = Daemon(harness.load_config(), KEY)
    running = asyncio.create_task(daemon.run())
    await wait_until(lambda: len(harness.results()) == 1 and harness.daemon_report().count('"watching": true') == 2)
    file = harness.root / "watchd.yaml"
    await wait_until(lambda: harness.jobs()[0].state == "done")
    short, judged_short = await _run_status(file)
    with file.open("a") as opened:
        opened.write("\n")
    full, judged_full = await _run_status(file)
    daemon.stop()
    assert await running == 0
    assert (judged_short, judged_full) == (False, True)
    assert short == full
    assert json.loads(short)["credits"]["today"] == 5


async def test_status_follows_an_accepted_reload_and_no_refused_one(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    allowed = True

    def read_again() -> tuple[Config, str]:
        if not allowed:
            raise ConfigError("no API key")
        return load_config(file, {}), KEY

    daemon = Daemon(harness.load_config(), KEY, reload=read_again)
    file = harness.root / "watchd.yaml"
    running = asyncio.create_task(daemon.run())
    await wait_until(lambda: '"watching": true' in harness.daemon_report())
    file.write_text(file.read_text().replace("qps: 500", "qps: 400"))
    daemon.reload()
    report, loaded_file = await _run_status(file)
    assert (json.loads(report)["rate"]["qps"], loaded_file) == (400, False)
    allowed = False
    file.write_text(file.read_text().replace("qps: 400", "qps: 300"))
    daemon.reload()
    assert main(["status", "-c", str(file)]) == 0
    assert "reload refused, the old configuration is in force (no API key)" in capsys.readouterr().out
    daemon.stop()
    assert await running == 0


async def test_a_journal_changed_by_reload_is_not_taken_for_the_running_one(
    harness: Harness,
) -> None:
    file = harness.root / "watchd.yaml"
    harness.rule = {"exclude": [f"journal: {harness.journal}"]}
    daemon = Daemon(harness.load_config(), KEY, reload=lambda: (load_config(file, {}), KEY))
    running = asyncio.create_task(daemon.run())
    await wait_until(lambda: '"watching": true' in harness.daemon_report())
    text = file.read_text().replace("journal: state/journal.db", "journal: state/new.db")
    file.write_text(text)
    assert f"journal: {harness.journal}" in text.replace("\n", " ")
    daemon.reload()
    report, loaded_file = await _run_status(file)
    assert (json.loads(report)["running"], loaded_file) == (False, True)
    daemon.stop()
    assert await running == 0


@pytest.mark.parametrize("case", ["key", "outbox"])
async def test_an_unfinished_run_ends_with_what_it_waits_for(harness: Harness, case: str) -> None:
    if case == "key":
        harness.simulator.settings = replace(harness.simulator.settings, key="another one")
    else:
        harness.rule = {"outbox": "nowhere/outbox"}
    harness.drop_file("a.jpg")
    lines = io.StringIO()
    daemon = Daemon(harness.load_config(), KEY)
    following = asyncio.create_task(ProgressReporter(lines).follow(daemon))
    assert await daemon.run(once=True) == 1
    await cancel_and_wait(following)
    reason = {"key": "PicWish does not accept the API key", "outbox": "scans: "}[case]
    last = lines.getvalue().splitlines()[-1]
    assert last.startswith(f"0 of 1: 1 queued; at most 5 credits; no end can be predicted, it waits: {reason}")
