"""A job as scripts read it: the object that `jobs --json`, `show --json` and the sidecars give."""

import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from picwish_watchd.state import State

if TYPE_CHECKING:  # `status` takes its words from here, and describes no job
    from picwish_watchd.job import Job, JobEvent


def described(job: "Job") -> dict[str, object]:
    """All facts of a job with plain values; times ISO 8601 UTC, paths absolute, names of users' scripts."""
    from dataclasses import asdict

    answer = json.loads(job.answer) if job.answer else None
    return {
        "id": job.id,
        "rule": job.rule,
        "state": job.state,
        "source": str(job.source),
        "kind": job.kind,
        "url": job.url,
        "task_id": job.task_id,
        "type": job.type,
        "return_type": job.return_type,
        "sync": job.sync,
        "sha256": job.sha256,
        "size": job.stamp.size,
        "format": job.format,
        "width": job.width,
        "height": job.height,
        "sent": None if job.sent is None else asdict(job.sent),
        "credits": job.credits,
        "credits_in_doubt": job.credits_in_doubt,
        "attempts": job.attempts,
        "error": None if job.problem is None else {"code": job.problem.code, "message": job.problem.message},
        "output": None if job.output is None else str(job.output),
        "result": None if job.result is None else asdict(job.result),
        "original": job.original,
        "note": job.note,
        "answer": answer,
        "created_at": moment(job.created_at),
        "submitted_at": moment(job.submitted_at),
        "completed_at": moment(job.completed_at),
    }


def described_event(event: "JobEvent") -> dict[str, object]:
    """One line of a job's history."""
    return {"at": moment(event.at), "state": event.state, "message": event.message}


def moment(seconds: float | None) -> str | None:
    """Unix seconds as ISO 8601 UTC with milliseconds."""
    if seconds is None:
        return None
    from datetime import UTC, datetime  # here: `status` of a daemon at rest tells no times

    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def counted(number: int, what: str) -> str:
    """A number of things as people write it: "1 image", "2 images"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def left_behind(rules: Collection[str], counts: Mapping[str, Mapping[State, int]]) -> list[str]:
    """Sentences on queued images whose rule is none of ``rules`` any more; ``counts`` as `JournalReader.counts`."""
    return [
        f"{counted(states[State.QUEUED], 'queued image')} {'waits' if states[State.QUEUED] == 1 else 'wait'} for rule "
        f"{rule}, which left the configuration: put it back"
        for rule, states in sorted(counts.items())
        if rule not in rules and states.get(State.QUEUED)
    ]


def spent_of(spent: int, most: int | None) -> str:
    """Credits beside their limit, if there is one: "35", "35 of 500"."""
    return str(spent) if most is None else f"{spent} of {most}"


def waiting_for_approval(images: int, price: int, rule: str) -> str:
    """A flood that `budget.burst` holds, in words."""
    what = f"{counted(images, 'image')} ({counted(images * price, 'credit')})"
    return f"{what} {'waits' if images == 1 else 'wait'} for `picwish-watchd approve {rule}`"


def sidecar_text(job: "Job") -> str:
    """What stands in NAME.EXT.json and NAME.EXT.error.json: the job, and in it PicWish's answer without the image."""
    return json.dumps(described(job), indent=2) + "\n"
