"""`why PATH` says for any path what it is, why, and what to do next; it submits and creates nothing."""

import io
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from picwish_watchd.cli.main import main
from picwish_watchd.clock import Clock
from picwish_watchd.fs.mounts import Mount
from picwish_watchd.fs.safe_open import stamp_of
from picwish_watchd.job import ErrorCode, Job, NewJob, OriginalStatus, Problem, Result, State
from picwish_watchd.journal.locks import DaemonLock
from picwish_watchd.journal.writer import ChargeState, Journal
from tests.support.harness import Harness
from tests.support.sample_images import make_image

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")


class WhyCommand:
    """The `why` command as a user runs it."""

    def __init__(self, harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
        self.harness, self.capsys = harness, capsys

    def run_json(self, path: Path | str) -> dict[str, Any]:
        code, out = self.run("why", "--json", "-c", str(self.harness.write_config()), "--", os.fspath(path))
        report: dict[str, Any] = json.loads(out)
        assert self.harness.simulator.requests == [] or self.harness.jobs()
        return {**report, "code": code, "advice": report["advice"] or ""}

    def run_text(self, path: Path | str) -> str:
        return self.run("why", "-c", str(self.harness.write_config()), "--", os.fspath(path))[1]

    def run(self, *words: str) -> tuple[int, str]:
        self.capsys.readouterr()
        code = main(words)
        return code, self.capsys.readouterr().out


@pytest.fixture
def why_command(harness: Harness, capsys: pytest.CaptureFixture[str]) -> WhyCommand:
    return WhyCommand(harness, capsys)


@contextmanager
def open_journal(harness: Harness) -> Iterator[Journal]:
    journal = Journal.open_for_writing(harness.journal, Clock())
    try:
        yield journal
    finally:
        journal.close()


def queue_job(harness: Harness, journal: Journal, name: str, *, seed: int = 0, flood: bool = False) -> Job:
    """Drop a file into the inbox and add its job."""
    path = harness.drop_file(name, seed=seed)
    new = NewJob(
        "scans",
        path,
        path.relative_to(harness.inbox),
        stamp_of(path.lstat()),
        sha256=harness.dropped[path],
        format="jpeg",
        width=32,
        height=24,
        flood=flood,
    )
    job = journal.get(journal.add_jobs([new])[0])
    assert job is not None
    return job


def hold_job(journal: Journal, job: Job, *, task: str | None = None) -> Job:
    job = journal.transition(job, State.SUBMITTING, "sending", reserve=5, submitted_at=1.0)
    problem = Problem(ErrorCode.SUBMIT_OUTCOME_UNKNOWN, "its answer never came whole")
    return journal.transition(job, State.HELD, "held", charge=ChargeState.DOUBTFUL, problem=problem, task_id=task)


@contextmanager
def publish_daemon_report(harness: Harness, **report: Any) -> Iterator[None]:
    """Pretend that a running daemon has published this status report."""
    lock = DaemonLock(harness.journal)
    with open_journal(harness) as journal:
        journal.publish_report(json.dumps({"pid": os.getpid(), "rules": {"scans": {"watching": True}}, **report}))
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


async def test_an_inbox_that_is_a_link_is_known_by_both_of_its_names(harness: Harness, why_command: WhyCommand) -> None:
    real = harness.root / "real"
    harness.inbox.rename(real)
    harness.inbox.symlink_to(real)
    with open_journal(harness) as journal:
        queue_job(harness, journal, "deep/a.jpg")
    harness.drop_file("new.jpg", seed=3)
    for inbox in (harness.inbox, real):
        assert why_command.run_json(inbox / "deep/a.jpg")["job"] == 1
        assert why_command.run_json(inbox / "new.jpg")["rule"] == "scans"
        assert why_command.run_json(inbox)["reason"].startswith("it is the inbox of rule scans")
        assert why_command.run_json(inbox / "notes.txt")["code"] == 1


async def test_why_says_that_a_changed_file_becomes_a_new_job(harness: Harness, why_command: WhyCommand) -> None:
    with open_journal(harness) as journal:
        job = queue_job(harness, journal, "a.jpg")
        queue_job(harness, journal, "touched.jpg", seed=1)
    os.utime(harness.inbox / "touched.jpg", ns=(1, 1))
    assert "changed" not in why_command.run_json(harness.inbox / "touched.jpg")["reason"]
    del harness.dropped[job.source]
    harness.drop_file("a.jpg", seed=2)
    output = why_command.run_json(job.source)
    assert (output["code"], output["job"], output["state"]) == (0, 1, "queued")
    assert (
        "it has changed since, and becomes a job of its own: it has no job yet; it costs 5 credits" in output["reason"]
    )
    harness.drop_file("a.jpg", b"no picture at all" * 9)
    assert "becomes a job of its own: it will be rejected" in why_command.run_json(job.source)["reason"]
    job.source.unlink()
    del harness.dropped[job.source]
    assert "the file itself is gone" in why_command.run_json(job.source)["reason"]


async def test_why_lists_all_that_a_queued_job_waits_for(harness: Harness, why_command: WhyCommand) -> None:
    harness.top_level = {"budget": {"per_day": 7, "burst": {"images": 1, "per": "10m"}}}
    with open_journal(harness) as journal:
        job = queue_job(harness, journal, "a.jpg")
        flood = queue_job(harness, journal, "b.jpg", seed=1, flood=True)
    output = why_command.run_json(job.source)
    assert "the daemon does not run" in output["reason"]
    assert "picwish-watchd run" in output["advice"]
    assert "approve scans" in why_command.run_json(flood.source)["advice"]
    with publish_daemon_report(harness):
        assert why_command.run_json(job.source)["reason"] == "it is queued and waits for its turn"
        with open_journal(harness) as journal:
            hold_job(journal, queue_job(harness, journal, "c.jpg", seed=2))
        output = why_command.run_json(job.source)
        assert (
            "the budget of 7 credits a day is reached (5 spent or reserved); submitting continues at midnight"
            in output["reason"]
        )
        assert "budget" in output["advice"]
    with publish_daemon_report(harness, blocked={"code": "api_down", "message": "PicWish does not answer: refused"}):
        output = why_command.run_json(job.source)
        assert "PicWish does not answer: refused" in output["reason"]
        assert "picwish-watchd status" in output["advice"]


@pytest.mark.parametrize("case", ["away", "moved", "no parent", "full"])
async def test_why_reports_outbox_problems_without_creating_the_outbox(
    harness: Harness, why_command: WhyCommand, case: str
) -> None:
    says = {"away": "is away", "moved": "it is on the", "no parent": "is not there", "full": "min_free is"}[case]
    with open_journal(harness) as journal:
        job = queue_job(harness, journal, "a.jpg")
        if case in ("away", "moved"):
            journal.save_folder(harness.outbox, Mount("/gone", "nfs4"))
    if case == "moved":
        harness.outbox.mkdir()
    if case == "no parent":
        harness.rule = {"outbox": "nowhere/outbox"}
    if case == "full":
        harness.outbox.mkdir()
        harness.top_level = {"min_free": "900000GiB"}
    with publish_daemon_report(harness):
        output = why_command.run_json(job.source)
        fresh = why_command.run_json(harness.drop_file("new.jpg", seed=9))
    assert says in output["reason"]
    assert says in fresh["reason"]
    assert "it continues automatically" in output["advice"]
    assert harness.outbox.exists() is (case in ("moved", "full"))


async def test_what_blocks_a_whole_rule_is_shown_for_each_of_its_images(
    harness: Harness, why_command: WhyCommand
) -> None:
    text = f"{harness.outbox} cannot be used: it is not writable"
    with open_journal(harness) as journal:
        first = [queue_job(harness, journal, f"{number}.jpg", seed=number) for number in range(2)]
        for job in first:
            journal.update(job, note=f"{job.source.name} cannot be read", not_before=Clock().now() + 30)
    new = harness.drop_file("new.jpg", seed=8)
    with publish_daemon_report(harness):
        with open_journal(harness) as journal:
            late = queue_job(harness, journal, "late.jpg", seed=9)
            assert why_command.run_json(late.source)["reason"] == "it is queued and waits for its turn"
            assert "wait" not in why_command.run_json(new)["reason"]
            journal.postpone_jobs("scans", State.QUEUED, text, Clock().now() + 30)
            output = [why_command.run_json(path) for path in (first[0].source, new)]
            # Copies beyond the number that is reported one by one have no note.
            journal.update(late, note=None, not_before=None)
            output.append(why_command.run_json(late.source))
        for each in output:
            assert each["reason"].count(text) == 1
            assert "it continues automatically" in each["advice"]


def make_pending(journal: Journal, job: Job) -> Job:
    job = journal.transition(job, State.SUBMITTING, "sending", reserve=5, submitted_at=1.0)
    return journal.transition(job, State.PENDING, "taken", task_id="t-1")


async def test_no_end_time_is_shown_for_a_task_that_is_not_polled(harness: Harness, why_command: WhyCommand) -> None:
    with open_journal(harness) as journal:
        job = make_pending(journal, queue_job(harness, journal, "a.jpg"))

    def end() -> Any:
        return json.loads(why_command.run("status", "--json", "-c", str(harness.write_config()))[1])["forecast"]["end"]

    assert end() is None
    with publish_daemon_report(harness):
        assert end() is not None
    with publish_daemon_report(harness, blocked={"code": "budget", "message": "the budget is reached"}):
        assert end() is not None
        assert "budget" not in why_command.run_json(job.source)["reason"]
    with publish_daemon_report(harness, blocked={"code": "api_down", "message": "PicWish does not answer: refused"}):
        assert end() is None
        output = why_command.run_json(job.source)
        assert output["reason"].endswith("; PicWish does not answer: refused")
        assert "picwish-watchd status" in output["advice"]


async def test_a_waiting_delivery_shows_what_it_waits_for(harness: Harness, why_command: WhyCommand) -> None:
    with open_journal(harness) as journal:
        job = queue_job(harness, journal, "a.jpg")
        job = journal.transition(job, State.DELIVERING, "copied", result=Result("jpeg", 1, 1, 1, "0" * 64))
        journal.postpone_jobs("scans", State.DELIVERING, "there is no room in the outbox", Clock().now() + 60)
    with publish_daemon_report(harness):
        output = why_command.run_json(job.source)
    assert "its result is paid and kept, and goes to the outbox: there is no room in the outbox" in output["reason"]
    assert "tried again at" in output["reason"]
    assert output["advice"]


async def test_why_says_what_retry_of_a_failed_job_would_do_and_cost(harness: Harness, why_command: WhyCommand) -> None:
    with open_journal(harness) as journal:
        first = hold_job(journal, queue_job(harness, journal, "held.jpg"))
        asked_for = hold_job(journal, queue_job(harness, journal, "task.jpg", seed=1), task="t1")
        copy = queue_job(harness, journal, "copy.jpg")
        text = "the same image as job 1, which is held; it continues together with that job"
        journal.transition(copy, State.HELD, text, problem=Problem(ErrorCode.DUPLICATE_OF_HELD, text))
        bad = queue_job(harness, journal, "bad.jpg", seed=2)
        bad = journal.transition(bad, State.REJECTED, "bad", problem=Problem(ErrorCode.CORRUPT, "bad.jpg is corrupt"))
        spooled = hold_job(journal, queue_job(harness, journal, "spooled.jpg", seed=3))
        journal.update(spooled, result=Result("jpeg", 1, 1, 1, "0" * 64))
    spool = harness.journal.with_name("journal.db.spool")
    spool.mkdir()
    (spool / f"{spooled.id}.result").write_bytes(b"paid")
    output = why_command.run_json(first.source)
    assert "its answer never came whole" in output["reason"]
    assert "`picwish-watchd retry 1` submits it again, and costs 5 credits again" in output["advice"]
    assert "asks PicWish for the old task first" in why_command.run_json(asked_for.source)["advice"]
    assert "retry its first, job 1" in why_command.run_json(copy.source)["advice"]
    assert "repaired" in why_command.run_json(bad.source)["advice"]
    assert "delivers what was paid for, at no cost" in why_command.run_json(spooled.source)["advice"]
    output = why_command.run_json(spool / f"{spooled.id}.result")
    assert (output["code"], output["job"]) == (0, spooled.id)
    for name in ("²²²²².result", "99999999999999999999999999.result", "x"):
        assert why_command.run_json(spool / name)["code"] == 1
    assert "leave it" in why_command.run_json(harness.journal)["reason"]
    first.source.unlink()
    del harness.dropped[first.source]
    assert why_command.run_json(first.source)["advice"].startswith("put the file back first; ")


async def test_results_originals_and_sidecars_name_their_job(harness: Harness, why_command: WhyCommand) -> None:
    harness.rule = {
        "on_success": "move",
        "archive": "archive",
        "on_failure": "move",
        "failed": "failed",
        "sidecar": True,
    }
    harness.drop_file("a.jpg")
    harness.drop_file("b.jpg", b"no picture at all" * 9)
    (harness.root / "archive").mkdir()
    # The existing file makes the original get another name.
    (harness.root / "archive/a.jpg").write_bytes(make_image("jpeg", seed=8))
    await harness.run_once()
    done, bad = harness.job("a.jpg").id, harness.job("b.jpg").id
    output = why_command.run_json(harness.inbox / "a.jpg")
    assert (output["state"], output["job"]) == ("done", done)
    assert "the original was moved to" in output["reason"]
    for path, job in (
        ("archive/a-1.jpg", done),
        ("outbox/a.jpg", done),
        ("outbox/a.jpg.json", done),
        ("failed/b.jpg", bad),
        ("failed/b.jpg.error.json", bad),
    ):
        output = why_command.run_json(harness.root / path)
        assert (output["code"], output["job"], output["rule"]) == (0, job, "scans"), path
    output = why_command.run_json(harness.root / "archive/a.jpg")
    assert (output["code"], output["job"]) == (1, None)
    assert why_command.run_json(harness.root / "failed/b.jpg")["advice"]
    assert why_command.run_json(harness.outbox)["reason"] == "it is the outbox of rule scans"
    (harness.outbox / "a.jpg").write_bytes(make_image("png"))
    assert "changed" in why_command.run_json(harness.outbox / "a.jpg")["reason"]
    (harness.outbox / "a.jpg").unlink()
    assert "it is not here any more" in why_command.run_json(harness.outbox / "a.jpg")["reason"]
    assert "is not there any more" in why_command.run_json(harness.inbox / "a.jpg")["reason"]
    harness.drop_file("a.jpg", seed=5)
    assert (
        "another file is there now, and becomes a job of its own"
        in why_command.run_json(harness.inbox / "a.jpg")["reason"]
    )


async def test_a_deleted_original_and_one_whose_rule_is_gone_are_still_known(
    harness: Harness, why_command: WhyCommand
) -> None:
    with open_journal(harness) as journal:
        job = queue_job(harness, journal, "a.jpg")
        journal.update(job, "the original was deleted, as on_success: delete asks", original=OriginalStatus.DELETED)
    job.source.unlink()
    del harness.dropped[job.source]
    assert "the original was deleted" in why_command.run_json(job.source)["reason"]
    harness.rule = {"name": "other", "inbox": "elsewhere"}
    output = why_command.run_json(job.source)
    assert (output["code"], output["job"]) == (0, 1)
    assert "left the configuration" in output["reason"]


async def test_links_into_our_own_folders_are_never_taken(harness: Harness, why_command: WhyCommand) -> None:
    harness.rule = {"archive": "archive", "failed": "failed"}
    for name in ("outbox", "archive", "failed"):
        (harness.root / name).mkdir()
        (harness.root / name / "a.jpg").write_bytes(make_image("jpeg"))
        (harness.inbox / f"to-{name}").symlink_to(harness.root / name)
        (harness.inbox / f"{name}.jpg").symlink_to(harness.root / name / "a.jpg")
    (harness.inbox / "loop").symlink_to(harness.inbox)
    harness.drop_file("a.jpg")
    (harness.inbox / "nowhere.jpg").symlink_to(harness.root / "nothing")
    assert "follow_symlinks is false" in why_command.run_json(harness.inbox / "to-outbox/a.jpg")["reason"]
    assert "is a symbolic link, not a file" in why_command.run_json(harness.inbox / "outbox.jpg")["reason"]
    harness.rule["follow_symlinks"] = True
    for name in ("outbox", "archive", "failed"):
        for path in (f"to-{name}", f"to-{name}/a.jpg", f"{name}.jpg"):
            output = why_command.run_json(harness.inbox / path)
            assert (output["code"], output["rule"], output["job"]) == (0, None, None), path
            assert f"leads into {harness.root / name}" in output["reason"], path
            assert output["advice"]
    assert "back to a folder above it" in why_command.run_json(harness.inbox / "loop/a.jpg")["reason"]
    harness.drop_file("c.jpg", seed=3, inbox=".")
    (harness.inbox / "up").symlink_to(harness.root)
    assert "it costs 5 credits" in why_command.run_json(harness.inbox / "up/c.jpg")["reason"], (
        "the path as the scanner reports it"
    )
    harness.drop_file("sub/b.jpg")
    (harness.inbox / "beside").symlink_to("sub")
    assert (
        "leads to sub, which is scanned under its own name"
        in why_command.run_json(harness.inbox / "beside/b.jpg")["reason"]
    )
    assert "it costs 5 credits" in why_command.run_json(harness.inbox / "sub/b.jpg")["reason"]
    assert "leads nowhere" in why_command.run_json(harness.inbox / "nowhere.jpg")["reason"]


async def test_what_is_no_file_is_never_opened_and_is_named(harness: Harness, why_command: WhyCommand) -> None:
    os.mkfifo(harness.inbox / "pipe.jpg")
    (harness.inbox / "folder.jpg").mkdir()
    (harness.inbox / "sub").mkdir()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(harness.inbox / "s.jpg"))
        for name, what in (("pipe.jpg", "a named pipe"), ("folder.jpg", "a folder"), ("s.jpg", "a socket")):
            output = why_command.run_json(harness.inbox / name)
            assert (output["code"], output["rule"]) == (0, "scans")
            assert f"it will be rejected: {name} is {what}, not a file" in output["reason"]
    assert "is scanned for rule scans" in why_command.run_json(harness.inbox / "sub")["reason"]
    harness.rule = {"recursive": False}
    assert "recursive is false" in why_command.run_json(harness.inbox / "sub")["reason"]
    output = why_command.run_json("/dev/null")
    assert (output["code"], output["rule"]) == (1, None)


@pytest.mark.parametrize("name", ["a\nb.jpg", "a\x1b[31m.jpg", "a\udcff.jpg", "-json.jpg", "a\u202egpj.exe.jpg"])
async def test_a_hostile_name_is_answered_and_printed_harmlessly(
    harness: Harness, why_command: WhyCommand, name: str
) -> None:
    path = harness.drop_file(name)
    assert why_command.run_json(path)["path"] == str(path)
    output = why_command.run_text(path)
    assert output.count("\n") == 4, "the lines path, rule, reason, advice"
    assert all(each.isprintable() or each == "\n" for each in output)
    with open_journal(harness) as journal:
        queue_job(harness, journal, name)
    assert why_command.run_json(path)["job"] == 1


async def test_a_terminal_that_cannot_show_a_name_gets_it_escaped(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = harness.drop_file("été.jpg")
    stdout = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(stdout, "ascii"))
    assert main(["why", str(path), "-c", str(harness.write_config())]) == 0
    assert b"\\xe9t\\xe9.jpg" in stdout.getvalue()


async def test_relative_paths_dots_and_slashes_resolve_as_in_the_system(
    harness: Harness, why_command: WhyCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_journal(harness) as journal:
        job = queue_job(harness, journal, "sub/a.jpg")
    (harness.root / "way").symlink_to(harness.inbox / "sub")
    monkeypatch.chdir(harness.inbox)
    for path in ("sub/a.jpg", "./sub//a.jpg", "../inbox/sub/a.jpg", "sub/../sub/a.jpg", "../way/../sub/a.jpg"):
        assert why_command.run_json(path)["job"] == job.id, path
    assert why_command.run_json("sub/")["reason"] == why_command.run_json(harness.inbox / "sub")["reason"]
    assert why_command.run_json("sub/..")["reason"].startswith("it is the inbox of rule scans")
    gone = harness.root / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(["why", "a.jpg", "-c", str(harness.write_config())]) == 2
    assert "give the whole path" in why_command.capsys.readouterr().err
    assert why_command.run_json(job.source)["job"] == job.id


async def test_why_gives_the_price_and_time_of_a_file_without_a_job(harness: Harness, why_command: WhyCommand) -> None:
    path = harness.drop_file("a.jpg")
    output = why_command.run_json(path)
    assert output["reason"] == "it has no job yet; it costs 5 credits (there is no journal yet: nothing has run)"
    assert "picwish-watchd run" in output["advice"]
    harness.rule = {"settle": "1h", "settle_timeout": "2h"}
    assert "it is settling" in why_command.run_json(path)["reason"]
    harness.rule = {"if_exists": "skip", "type": 1}
    harness.outbox.mkdir()
    (harness.outbox / "a.png").write_bytes(make_image("png"))
    assert f"{harness.outbox / 'a.png'} is there already, so nothing is sent" in why_command.run_json(path)["reason"]
    harness.rule = {}
    with publish_daemon_report(harness):
        assert why_command.run_json(path)["advice"] == "it is taken within 60 s"
        harness.top_level = {"budget": {"burst": {"images": 1, "per": "10m"}}}
        with open_journal(harness) as journal:
            sending = queue_job(harness, journal, "first.jpg", seed=4)
            journal.transition(sending, State.SUBMITTING, "sending", reserve=5, submitted_at=1.0)
        assert "approve scans" in why_command.run_json(path)["advice"]
    harness.top_level = {}
    assert "it was being sent when the daemon ended" in why_command.run_json(sending.source)["reason"]
    with publish_daemon_report(harness, rules={}):
        assert "reload" in why_command.run_json(path)["advice"]
    with publish_daemon_report(harness, rules={"scans": {"watching": False, "reason": "stale file handle"}}):
        assert "stale file handle" in why_command.run_json(path)["advice"]
    cut = harness.drop_file("cut.jpg", make_image("jpeg")[:-9])
    # Keep the old modification time, as `cp -p` does; the file has arrived just now all the same.
    os.utime(cut, (1, 1))
    assert "not whole" in why_command.run_json(cut)["reason"]


async def test_why_says_that_an_inbox_is_on_a_missing_mount(harness: Harness, why_command: WhyCommand) -> None:
    path = harness.drop_file("a.jpg")
    with open_journal(harness) as journal:
        journal.save_folder(harness.inbox, Mount("/gone", "nfs4"))
        job = queue_job(harness, journal, "b.jpg", seed=1)
    output = why_command.run_json(path)
    assert "is away: it is on the" in output["reason"]
    assert "approve scans" in output["reason"]
    assert output["advice"]
    output = why_command.run_json(job.source)
    assert (output["job"], output["state"]) == (job.id, "queued")
    assert "; the inbox" in output["reason"]
    assert "is away: it is on the" in output["reason"]
    harness.inbox.rename(harness.root / "hidden")
    output = why_command.run_json(path)
    assert (output["code"], output["rule"]) == (1, "scans")
    assert "is away: it is not there" in output["reason"]


@as_root
async def test_why_says_that_a_folder_may_not_be_read(harness: Harness, why_command: WhyCommand) -> None:
    harness.drop_file("sub/a.jpg")
    with open_journal(harness):
        pass
    for folder in (harness.root, *harness.root.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    (harness.inbox / "sub").chmod(0o700)
    file = harness.write_config()
    harness.journal.parent.chmod(0o755)
    for each in harness.journal.parent.iterdir():
        each.chmod(0o644)
    os.seteuid(65534)
    try:
        outputs = [
            main(["why", str(path), "-c", str(file)]) for path in (harness.inbox / "sub", harness.inbox / "sub/a.jpg")
        ]
    finally:
        os.seteuid(0)
    out = why_command.capsys.readouterr().out
    assert outputs == [0, 0]
    assert out.count("it cannot be read: Permission denied") == 2


@as_root
async def test_a_journal_that_may_not_be_read_is_not_taken_for_none(harness: Harness, why_command: WhyCommand) -> None:
    path = harness.drop_file("a.jpg")
    with open_journal(harness):
        pass
    file = harness.write_config()
    for folder in (harness.root, *harness.root.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    os.seteuid(65534)
    try:
        assert main(["why", str(path), "-c", str(file)]) == 74
    finally:
        os.seteuid(0)
    assert "run this as the user that runs picwish-watchd" in why_command.capsys.readouterr().err
