"""``why PATH``: what became of a file and why."""

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

from picwish_watchd.cli.loading import open_config_and_journal
from picwish_watchd.clock import Clock
from picwish_watchd.errors import UsageError
from picwish_watchd.reporting.why import explain_path
from picwish_watchd.wording import printable_path


def run(args: argparse.Namespace) -> int:
    """Tells it; 1 if the path lies under no inbox or does not exist, and no job knows it."""
    config, reader = open_config_and_journal(args)
    found = explain_path(config, reader, _resolve_path(args.path), Clock().now())
    if not os.path.lexists(config.journal):
        found = replace(found, reason=f"{found.reason} (there is no journal yet: nothing has run)")
    job = found.job
    facts = {
        "path": str(found.path),
        "rule": found.rule,
        "job": None if job is None else job.id,
        "state": None if job is None else job.state,
        "reason": found.reason,
        "advice": found.advice,
    }
    if args.json:
        print(json.dumps({**facts, "earlier": found.earlier_job_ids}))
    else:
        for name, value in {**facts, "earlier": ", ".join(map(str, found.earlier_job_ids)) or None}.items():
            if value is not None:
                print(f"{name:<8} {printable_path(str(value))}")
    return 0 if found.is_known else 1


def _resolve_path(path: Path) -> Path:
    """The path that is meant: absolute, and "..", where it stands, as the system understands it behind a link."""
    if not path.is_absolute():
        try:
            path = Path.cwd() / path
        except OSError:
            raise UsageError(
                "the folder that this was started in is gone", hint="give the whole path, from / on"
            ) from None
    if ".." not in path.parts:
        return path
    return Path(os.path.realpath(path)) if path.name == ".." else Path(os.path.realpath(path.parent), path.name)
