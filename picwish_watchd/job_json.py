"""Convert a job to the JSON object that `jobs --json`, `show --json` and the sidecars contain."""

import json
from dataclasses import asdict

from picwish_watchd.job import Job, JobEvent
from picwish_watchd.wording import iso_utc


def job_to_dict(job: Job) -> dict[str, object]:
    """Return all facts of a job as plain values: times in ISO 8601 UTC, absolute paths.

    Scripts of users depend on the keys.
    """
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
        "created_at": iso_utc(job.created_at),
        "submitted_at": iso_utc(job.submitted_at),
        "completed_at": iso_utc(job.completed_at),
    }


def event_to_dict(event: JobEvent) -> dict[str, object]:
    """Return one line of a job's history as plain values."""
    return {"at": iso_utc(event.at), "state": event.state, "message": event.message}


def render_sidecar(job: Job) -> str:
    """Return the text of NAME.EXT.json and NAME.EXT.error.json: the job with PicWish's answer, without the image."""
    return json.dumps(job_to_dict(job), indent=2) + "\n"
