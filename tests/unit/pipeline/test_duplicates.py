"""One content, one charge: the job that an image follows is the same for ``submit`` and for ``why`` and ``plan``."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from picwish_watchd.config.schema import Rule
from picwish_watchd.job import Job, Result, State
from picwish_watchd.journal.writer import Journal
from picwish_watchd.pipeline.duplicates import find_first_job, list_firsts, must_follow
from tests.support.fake_clock import FakeClock
from tests.unit.journal.job_factory import add_job, get_job

CONTENT = "c" * 64
BYTES = b"the result"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal.open_for_writing(tmp_path / "state" / "journal.db", FakeClock())
    yield journal
    journal.close()


@pytest.fixture
def rule(tmp_path: Path) -> Rule:
    return Rule(name="scans", inbox=tmp_path / "in", outbox=tmp_path)


def add_copy(journal: Journal, name: str) -> Job:
    """Add a queued job of the common content."""
    return add_job(journal, name, sha256=CONTENT)


def add_delivered(journal: Journal, name: str, output: Path) -> Job:
    """Add a job of the common content whose result was delivered to ``output``."""
    output.write_bytes(BYTES)
    result = Result("jpeg", 1, 1, len(BYTES), hashlib.sha256(BYTES).hexdigest())
    job = journal.transition(add_copy(journal, name), State.DELIVERING, "copied", result=result)
    return journal.transition(job, State.DONE, "delivered", output=output)


def hold(journal: Journal, job: Job) -> Job:
    return journal.transition(job, State.HELD, "in doubt")


def test_delivered_jobs_are_followed_before_held_and_unfinished_ones(
    journal: Journal, rule: Rule, tmp_path: Path
) -> None:
    held = hold(journal, add_copy(journal, "held.jpg"))
    queued = add_copy(journal, "queued.jpg")
    own = add_copy(journal, "own.jpg")
    later = add_copy(journal, "later.jpg")
    delivered = [add_delivered(journal, f"{name}.jpg", tmp_path / name) for name in ("old", "new")]
    firsts = [job.id for job in list_firsts(journal, CONTENT, rule, own)]
    assert firsts == [delivered[1].id, delivered[0].id, queued.id, held.id], "none is newer than its own job"
    assert later.id in [job.id for job in list_firsts(journal, CONTENT, rule)]


def test_submit_looks_at_the_same_jobs_in_the_same_order_but_unfinished_ones(
    journal: Journal, rule: Rule, tmp_path: Path
) -> None:
    hold(journal, add_copy(journal, "held.jpg"))
    add_copy(journal, "queued.jpg")
    add_delivered(journal, "delivered.jpg", tmp_path / "delivered")
    own = add_copy(journal, "own.jpg")
    every = list_firsts(journal, CONTENT, rule, own)
    settled = list_firsts(journal, CONTENT, rule, own, settled=True)
    assert settled == [job for job in every if job.state in (State.DONE, State.HELD)]


def test_an_image_that_is_paid_again_does_not_follow_a_held_one(journal: Journal, rule: Rule) -> None:
    held = hold(journal, add_copy(journal, "held.jpg"))
    own = add_copy(journal, "own.jpg")
    assert find_first_job(journal, CONTENT, rule, own) == held
    again = journal.update(own, pay_again=True)
    assert not must_follow(again, held)
    assert find_first_job(journal, CONTENT, rule, again) is None


def test_a_result_that_was_changed_is_followed_by_nobody(journal: Journal, rule: Rule, tmp_path: Path) -> None:
    delivered = add_delivered(journal, "a.jpg", tmp_path / "a")
    assert find_first_job(journal, CONTENT, rule) == get_job(journal, delivered.id)
    (tmp_path / "a").write_bytes(b"another one")
    assert find_first_job(journal, CONTENT, rule) is None
    assert find_first_job(journal, CONTENT, rule, unresponsive_paths=[tmp_path]) is not None, "the file cannot be read"
