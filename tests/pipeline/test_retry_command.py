"""The exit code of `retry` depends on whether the named jobs exist, not on how many are retried."""

import subprocess
from pathlib import Path

from picwish_watchd.clock import Clock
from picwish_watchd.job import ErrorCode, Problem, State
from picwish_watchd.journal.writer import Journal
from tests.support import fork_server
from tests.unit.journal.job_factory import add_job, add_job_in_state


def run_retry(folder: Path, *names: str, model: int = 0) -> subprocess.CompletedProcess[str]:
    settings = folder / "watchd.yaml"
    settings.write_text(f"journal: journal.db\nrules: [{{name: scans, inbox: in, outbox: out, type: {model}}}]\n")
    return fork_server.run_fork("retry", *names, "-c", str(settings))


def test_a_job_named_twice_is_retried_once_and_that_is_fine(tmp_path: Path) -> None:
    journal = Journal.open_for_writing(tmp_path / "journal.db", Clock())
    job = add_job_in_state(journal, State.FAILED)
    journal.close()
    output = run_retry(tmp_path, str(job.id), str(job.id))
    assert (output.returncode, output.stderr) == (0, "")


def test_copies_that_go_on_do_not_hide_a_named_job_with_nothing_to_retry(tmp_path: Path) -> None:
    journal = Journal.open_for_writing(tmp_path / "journal.db", Clock())
    first, done = add_job_in_state(journal, State.HELD), add_job_in_state(journal, State.DONE, "b.jpg")
    problem = Problem(ErrorCode.DUPLICATE_OF_HELD, "a copy")
    journal.transition(add_job(journal), State.HELD, "held with its first", problem=problem)
    journal.close()
    output = run_retry(tmp_path, str(first.id), str(done.id))
    assert output.returncode == 1
    assert f"nothing to retry in job {done.id}" in output.stderr


def test_what_a_retry_may_cost_is_what_its_rule_costs_by_now(tmp_path: Path) -> None:
    journal = Journal.open_for_writing(tmp_path / "journal.db", Clock())
    job = add_job_in_state(journal, State.FAILED)
    assert job.type == 0
    journal.close()
    assert "for 4 credits at most" in run_retry(tmp_path, str(job.id), model=1).stdout
