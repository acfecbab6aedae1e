"""Choose the name under which a result is delivered."""

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


def find_existing_for_candidate(rule: Rule, new: NewJob, now: float, job_id: int = 0) -> Path | None:
    """What stands in the outbox already under the name of its result, where `if_exists: skip` leaves it at that."""
    if rule.if_exists is not IfExists.SKIP:
        return None
    names = {
        render_output_name(
            rule.filename,
            relative=new.relative,
            format=kind,
            rule=rule.name,
            type=new.type,
            task_id=None,
            job_id=job_id,
            width=new.width or 0,
            height=new.height or 0,
            now=datetime.fromtimestamp(now).astimezone(),
        )
        for kind in Format
    }
    found = find_existing_image(rule.outbox, names)
    return found if isinstance(found, Path) else None


def numbered_names(name: PurePath) -> Iterator[PurePath]:
    """The name, and then what to try where it is taken."""
    yield name
    for number in count(1):
        yield add_number(name, number)


def result_name(job: Job, rule: Rule, kind: Format, width: int, height: int, now: float) -> PurePath:
    """The name of a job's result below the outbox, by the rule's `filename`; ``now`` is in Unix seconds."""
    return render_output_name(
        rule.filename,
        relative=job.relative,
        format=kind,
        rule=rule.name,
        type=job.type,
        task_id=job.task_id,
        job_id=job.id,
        width=width,
        height=height,
        now=datetime.fromtimestamp(now).astimezone(),
    )


def find_existing_result(rule: Rule, job: Job, now: float) -> Path | FolderUnavailable | None:
    """For `if_exists: skip`: a file of the result's name in the outbox, whatever its extension. For a thread."""
    names = {result_name(job, rule, kind, job.width or 0, job.height or 0, now) for kind in Format}
    return find_existing_image(rule.outbox, names)
