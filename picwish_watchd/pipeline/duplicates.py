"""One content, one charge: the same bytes are paid for once for a rule and its ``type`` (law 1).

An image follows its first: another job of the same content (SHA-256), rule and ``type``. It waits for the first, gets
its result at no cost, or is held with it. `list_firsts` and `must_follow` decide this for the daemon (`Prepare`) and,
through `find_first_job`, for ``why`` and ``plan``. Other parts of the law are where their step needs them:

- Intake: `mark_own_results` recognises a file that is itself one of our results. It becomes `done` and is never sent.
  An image whose content already waits for `approve` is held with it (`JournalReader.flood_held_contents`).
- Turns: `NO_DUPLICATE_AHEAD` in ``journal/queries.py`` passes over a queued image while an earlier one of its content
  is queued, or any is under way. It is SQL, because it chooses among all queued images.
- Prepare: `Spool.copy_from_outbox` copies the first's result and compares its hash. A result that is gone or was
  changed is not copied, so the image is paid for again. `is_result_intact` answers the same without copying.
- Retry: `JournalReader.held_duplicates` finds the copies that continue together with their first.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from picwish_watchd.config.schema import Rule
from picwish_watchd.fs.safe_open import OpenFile, open_file, sha256_of
from picwish_watchd.job import Job, NewJob, SourceKind, State
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.outbox.availability import is_inside_any


def mark_own_results(new: Sequence[NewJob], journal: JournalReader) -> list[NewJob]:
    """Mark candidates whose content is one of our own results, so they are not submitted again."""
    images = [job.sha256 for job in new if job.sha256 is not None and job.kind is SourceKind.FILE]
    outputs = journal.result_outputs(images)
    return [replace(job, result_of=outputs[job.sha256]) if job.sha256 in outputs else job for job in new]


def list_firsts(
    journal: JournalReader, sha256: str | None, rule: Rule, job: Job | None = None, *, settled: bool = False
) -> list[Job]:
    """Return the jobs that an image of this content may follow, the best first.

    Delivered jobs come first, newest first: their results can be copied. Then come unfinished and held jobs; none of
    them is newer than ``job``, the image's own job if it has one. ``settled`` leaves the unfinished ones out.
    """
    if not sha256:
        return []
    others = journal.find_jobs_by_content(sha256, rule.name, rule.type, settled=settled)
    if job is None:
        return others
    return [other for other in others if other.id != job.id and (other.state is State.DONE or other.id < job.id)]


def must_follow(job: Job | None, first: Job) -> bool:
    """Return whether an image shares the fate of its ``first``: not where the user said to pay again for a held one."""
    return first.state is not State.HELD or job is None or not job.pay_again


def find_first_job(
    journal: JournalReader,
    sha256: str | None,
    rule: Rule,
    job: Job | None = None,
    unresponsive_paths: Collection[Path] = (),
) -> Job | None:
    """Return the job that an image of this content follows: one with an intact result, unfinished, or held.

    ``job`` is the image's own job, if it has one. A result below ``unresponsive_paths`` is not read and counts as
    intact.
    """
    for first in list_firsts(journal, sha256, rule, job):
        unreadable = first.output is not None and is_inside_any(first.output, unresponsive_paths)
        if first.state is not State.DONE or unreadable or is_result_intact(first):
            return first if must_follow(job, first) else None
    return None


def is_result_intact(job: Job) -> bool:
    """Return whether the job's result is in the outbox as it was delivered; the file is read."""
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
