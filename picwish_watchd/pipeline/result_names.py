"""Choose the name under which a result is delivered, and find out whether a file has that name already."""

from collections.abc import Iterator
from datetime import datetime
from itertools import count
from pathlib import Path, PurePath

from picwish_watchd.config.schema import IfExists, Rule
from picwish_watchd.fs.atomic_write import FolderUnavailable
from picwish_watchd.images.formats import Format
from picwish_watchd.job import Job, NewJob
from picwish_watchd.outbox.filenames import add_number, render_output_name
from picwish_watchd.outbox.publish import find_existing_image


def result_name(job: Job | NewJob, rule: Rule, kind: Format, width: int, height: int, now: float) -> PurePath:
    """Return the name of a job's result below the outbox, by the rule's `filename`.

    ``width`` and ``height`` are in pixels, ``now`` in Unix seconds. A candidate without a job has no task_id, and 0 as
    its job_id.
    """
    return render_output_name(
        rule.filename,
        relative=job.relative,
        image_format=kind,
        rule=rule.name,
        task_type=job.type,
        task_id=job.task_id if isinstance(job, Job) else None,
        job_id=job.id if isinstance(job, Job) else 0,
        width=width,
        height=height,
        now=datetime.fromtimestamp(now).astimezone(),
    )


def numbered_names(name: PurePath) -> Iterator[PurePath]:
    """Yield the name, then the names to try in turn where it is taken."""
    yield name
    for number in count(1):
        yield add_number(name, number)


def find_existing_result(rule: Rule, job: Job | NewJob, now: float) -> Path | FolderUnavailable | None:
    """Return the file that makes `if_exists: skip` skip a job, or a candidate for one, before it is paid for.

    It has the name of the job's result, whatever its extension. The answer is None if there is none, or if the rule
    does not skip. Reads the outbox, so call it in a thread of the outbox.
    """
    if rule.if_exists is not IfExists.SKIP:
        return None
    names = {result_name(job, rule, kind, job.width or 0, job.height or 0, now) for kind in Format}
    return find_existing_image(rule.outbox, names)
