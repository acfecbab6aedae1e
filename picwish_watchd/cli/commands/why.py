"""``why PATH``: explain what happened to a file and why."""

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
    """Print the explanation. Return 1 if no job knows the path and it does not exist or is under no inbox."""
    config, reader = open_config_and_journal(args)
    explanation = explain_path(config, reader, _resolve_path(args.path), Clock().now())
    if not os.path.lexists(config.journal):
        reason = f"{explanation.reason} (there is no journal yet: nothing has run)"
        explanation = replace(explanation, reason=reason)
    job = explanation.job
    facts = {
        "path": str(explanation.path),
        "rule": explanation.rule,
        "job": None if job is None else job.id,
        "state": None if job is None else job.state,
        "reason": explanation.reason,
        "advice": explanation.advice,
    }
    if args.json:
        print(json.dumps({**facts, "earlier": explanation.earlier_job_ids}))
    else:
        for name, value in {**facts, "earlier": ", ".join(map(str, explanation.earlier_job_ids)) or None}.items():
            if value is not None:
                print(f"{name:<8} {printable_path(str(value))}")
    return 0 if explanation.is_known else 1


def _resolve_path(path: Path) -> Path:
    """Return the absolute path. ".." is resolved as the system does it, through links."""
    if not path.is_absolute():
        try:
            path = Path.cwd() / path
        except OSError:
            raise UsageError("the working folder was removed", hint="give the whole path, beginning with /") from None
    if ".." not in path.parts:
        return path
    return Path(os.path.realpath(path)) if path.name == ".." else Path(os.path.realpath(path.parent), path.name)
