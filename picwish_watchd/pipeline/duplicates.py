"""Find the first image of a content, whose result serves its copies."""

from collections.abc import Collection
from pathlib import Path

from picwish_watchd.config.schema import Rule
from picwish_watchd.fs.safe_open import OpenFile, open_file, sha256_of
from picwish_watchd.job import Job, State
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.outbox.availability import is_inside_any


def find_first_job(
    journal: JournalReader, sha256: str, rule: Rule, job: Job | None = None, silent: Collection[Path] = ()
) -> Job | None:
    """The earlier job that an image of this content follows: its result stands unchanged, or it is under way or held.

    ``job`` is its own job, if it has one. What lies in ``silent`` folders is not looked at, and counts as standing.
    """
    for other in journal.find_jobs_by_content(sha256, rule.name, rule.type):
        if job is not None and (other.id == job.id or (other.state is not State.DONE and other.id > job.id)):
            continue
        unseen = other.output is not None and is_inside_any(other.output, silent)
        if other.state is not State.DONE or unseen or is_result_intact(other):
            return other
    return None


def is_result_intact(job: Job) -> bool:
    """Whether the job's result lies in the outbox as it was delivered; it is read."""
    if job.output is None or job.result is None:
        return False
    opened = open_file(job.output)
    if not isinstance(opened, OpenFile):
        return False
    with opened:
        try:
            return opened.size == job.result.size and sha256_of(opened) == job.result.sha256
        except OSError:
            return False
