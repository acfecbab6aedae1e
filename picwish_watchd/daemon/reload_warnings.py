"""Warn after a reload about rules that cannot use their new folders before a restart."""

import structlog

from picwish_watchd.config.model import Config
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.runtime.worker_key import WorkerKey

_log = structlog.get_logger()

_HANG_REASON = (
    "one of its old folders does not answer; its images wait until that folder answers or picwish-watchd is restarted. "
    "A restart loses nothing"
)


def warn_stuck_folders(context: StepContext, old_config: Config) -> None:
    """Log each rule whose folders differ from ``old_config`` while a call for one of its old folders hangs.

    The hung call may still write when the folder answers, so the same work must not be started beside it.
    """
    old_folders = {rule.name: rule.folders() for rule in old_config.rules}
    for rule in context.config.rules:
        stuck = any(map(context.executor.is_stuck, WorkerKey.used_before_submission(rule.name)))
        if stuck and old_folders.get(rule.name, rule.folders()) != rule.folders():
            _log.warning("config.needs_restart", key="rules", rule=rule.name, reason=_HANG_REASON)
