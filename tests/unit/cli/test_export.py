"""`export`: what an accountant and a spreadsheet get."""

import csv
import io
import json
import os
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from picwish_watchd.cli.main import main
from picwish_watchd.job import ErrorCode, Problem, State
from picwish_watchd.journal.writer import ChargeState, Journal
from tests.support.fake_clock import FakeClock
from tests.unit.journal.job_factory import add_job
from tests.unit.journal.test_prune import DAY, add_done_job

NOON = time.mktime((2026, 1, 30, 12, 0, 0, 0, 0, -1))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a configuration whose journal spans the turn of a month: jobs paid, in doubt, refused and under way."""
    clock = FakeClock(NOON)
    journal = Journal.open_for_writing(tmp_path / "journal.db", clock)
    add_done_job(journal, "a.jpg")
    clock.advance(DAY)
    add_done_job(journal, os.fsdecode(b"caf\xe9\n.jpg"), rule="other")
    clock.advance(DAY)
    job = journal.transition(add_job(journal, "c.jpg"), State.SUBMITTING, "sending", reserve=4)
    problem = Problem(ErrorCode.SUBMIT_OUTCOME_UNKNOWN, '=HYPERLINK("http://evil"), "quoted"')
    journal.transition(job, State.HELD, "nobody knows", charge=ChargeState.DOUBTFUL, problem=problem)
    job = journal.transition(add_job(journal, "d.jpg"), State.SUBMITTING, "sending", reserve=5)
    journal.transition(job, State.FAILED, "400", charge=ChargeState.RELEASED, problem=problem)
    journal.transition(add_job(journal, "e.jpg"), State.SUBMITTING, "sending", reserve=5)
    journal.close()
    file = tmp_path / "watchd.yaml"
    file.write_text("journal: journal.db\nrules: [{name: scans, inbox: in, outbox: out}]\n")
    return file


def run_command(config: Path, *arguments: str) -> str:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with redirect_stdout(out):
        assert main([*arguments, "-c", str(config)]) == 0
    out.flush()
    data: bytes = out.buffer.getvalue()
    return data.decode()


def export_json(config: Path, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run_command(config, "export", "--json", *arguments).splitlines()]


def export_csv(config: Path, *arguments: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(run_command(config, "export", "--csv", *arguments), newline="")))


def test_the_exported_spending_equals_the_sum_of_spend(config: Path) -> None:
    rows = export_json(config, "--what", "spend")
    spend = json.loads(run_command(config, "spend", "--json"))
    assert sum(row["credits"] for row in rows) == spend["credits"] == 19
    assert sum(row["credits"] for row in rows if row["state"] == "doubtful") == spend["credits_in_doubt"] == 4
    for day in spend["rows"]:
        ours = [row for row in rows if row["day"] == day["day"]]
        assert (sum(row["credits"] for row in ours), len(ours)) == (day["credits"], day["images"])
    assert [row["state"] for row in rows] == ["spent", "spent", "doubtful", "reserved"]
    assert [row["job"] for row in rows] == [1, 2, 3, 5]


def test_csv_and_json_say_the_same_of_spending(config: Path) -> None:
    rows = export_csv(config, "--what", "spend", "--rule", "scans")
    assert rows == [
        {name: str(value) for name, value in row.items()}
        for row in export_json(config, "--what", "spend", "--rule", "scans")
    ]
    assert list(rows[0]) == ["at", "day", "rule", "job", "source", "credits", "state"]
    assert rows[0]["day"] == "2026-01-30"


def test_json_of_jobs_is_that_of_jobs_json_oldest_first(config: Path) -> None:
    listed = [json.loads(line) for line in run_command(config, "jobs", "--json").splitlines()]
    assert export_json(config) == listed[::-1]
    assert export_json(config, "--rule", "other") == [job for job in listed if job["rule"] == "other"]


def test_csv_of_jobs_has_every_fact_but_the_answer_in_a_column_of_its_own(config: Path) -> None:
    first, *_ = export_csv(config)
    [full, *_] = export_json(config)
    assert first["sha256"] == full["sha256"]
    assert (first["result_width"], first["credits"], first["sent_width"]) == ("2", "5", "")
    missing = set(full) - set(first)
    assert missing == {"answer", "error", "sent", "result"}


def test_csv_is_rfc_4180_in_utf_8_and_runs_nothing_in_a_spreadsheet(config: Path) -> None:
    text = run_command(config, "export", "--csv")
    assert text.startswith("id,rule,state,source,")
    assert text.count("\r\n") == text.count("\n") == 6, "a line break in a name does not split the row"
    _, strange, held, *_ = export_csv(config)
    assert strange["source"] == "/inbox/caf\\xe9\\n.jpg"
    assert held["error_message"] == '\'=HYPERLINK("http://evil"), "quoted"'
    assert export_json(config)[2]["error"]["message"] == '=HYPERLINK("http://evil"), "quoted"'


def test_a_name_runs_nothing_where_a_spreadsheet_splits_lines_at_semicolons(tmp_path: Path) -> None:
    journal = Journal.open_for_writing(tmp_path / "journal.db", FakeClock(NOON))
    for name in ("a;=cmd|'x'!A0.jpg", 'b;""@SUM(1).jpg', "c; +1;-2.jpg", "d;e=f-g.jpg"):
        add_done_job(journal, name)
    journal.close()
    file = tmp_path / "watchd.yaml"
    file.write_text("journal: journal.db\nrules: [{name: scans, inbox: in, outbox: out}]\n")
    assert [row["source"] for row in export_csv(file)] == [
        "/inbox/a;'=cmd|'x'!A0.jpg",
        '/inbox/b;\'""@SUM(1).jpg',
        "/inbox/c;' +1;'-2.jpg",
        "/inbox/d;e=f-g.jpg",
    ]
    assert export_json(file)[0]["source"] == "/inbox/a;=cmd|'x'!A0.jpg"


def test_since_and_until_are_local_days_and_both_are_included(config: Path) -> None:
    days = {row["day"] for row in export_json(config, "--what", "spend", "--since", "2026-01-31")}
    assert days == {"2026-01-31", "2026-02-01"}
    assert [job["id"] for job in export_json(config, "--until", "2026-01-31")] == [1, 2]
    assert [job["id"] for job in export_json(config, "--since", "2026-01-31", "--until", "2026-01-31")] == [2]
    assert export_json(config, "--since", "2027-01-01") == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--since", "yesterday"), "yesterday is not a date"),
        (("--until", "2026-02-30"), "2026-02-30 is not a date"),
        (("--since", "2026-02-02", "--until", "2026-02-01"), "--until 2026-02-01 is before --since 2026-02-02"),
    ],
)
def test_an_invalid_day_or_time_is_reported(
    config: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], complaint: str
) -> None:
    assert main(["export", "--csv", *arguments, "-c", str(config)]) == 2
    assert complaint in capsys.readouterr().err


def test_a_reader_that_has_enough_is_no_error(config: Path, tmp_path: Path) -> None:
    journal = Journal.open_existing(tmp_path / "journal.db", FakeClock())
    for number in range(600):
        add_job(journal, f"{number}.jpg")
    journal.close()
    command = [sys.executable, "-m", "picwish_watchd", "export", "--csv", "-c", str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.read(1)
        child.stdout.close()
        assert child.stderr.read() == b""
        assert child.wait(30) == 0


def test_without_a_journal_there_is_a_header_and_nothing_more(config: Path, tmp_path: Path) -> None:
    for file in tmp_path.glob("journal.db*"):
        file.unlink()
    assert export_csv(config) == export_json(config) == []
    assert run_command(config, "export", "--csv", "--what", "spend") == "at,day,rule,job,source,credits,state\r\n"
