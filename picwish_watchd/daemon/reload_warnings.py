"""Warn after a reload of what keeps using the old configuration until a restart."""

import structlog

from picwish_watchd.config.model import Config
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.runtime.worker_key import WorkerKey

_log = structlog.get_logger()


_HANG_REASON = (
    "an earlier folder of it does not answer: until that does, or picwish-watchd is started again, its images wait. "
    "A restart loses nothing"
)


def warn_stuck_folders(context: StepContext, before: Config) -> None:
    """A line in the log for each rule whose folders are others than ``before``, while an earlier one does not answer.

    What waits there may still write once it answers: nothing of it may be begun a second time beside it.
    """
    folders = {rule.name: rule.folders() for rule in before.rules}
    for rule in context.config.rules:
        stuck = any(map(context.executor.is_stuck, WorkerKey.used_before_submission(rule.name)))
        if stuck and folders.get(rule.name, rule.folders()) != rule.folders():
            _log.warning("config.needs_restart", key="rules", rule=rule.name, reason=_HANG_REASON)
