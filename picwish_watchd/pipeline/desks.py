"""The rules at work: for each a watcher in its own thread and an intake in the event loop."""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog

from picwish_watchd.config import Observer, Rule
from picwish_watchd.files.observe import Inbox, Walked, Watcher
from picwish_watchd.files.walk import NameFilter, Sighting
from picwish_watchd.job import Job
from picwish_watchd.pipeline.context import Context
from picwish_watchd.pipeline.intake import Intake

_log = structlog.get_logger()


@dataclass(slots=True)
class Desk:
    """One rule at work."""

    rule: Rule
    intake: Intake
    watcher: Watcher
    task: asyncio.Task[None]
    walked: bool = False  #: at least once
    away: str | None = None  #: why its inbox cannot be walked

    @property
    def watching(self) -> bool:
        """Whether its inbox is seen."""
        return self.walked and self.away is None


class Desks:
    """All rules that are in force. ``changed`` is called when an inbox came, went, or was walked for the first time."""

    def __init__(self, context: Context, *, changed: Callable[[], None]) -> None:
        self._context = context
        self._changed = changed
        self._desks: dict[str, Desk] = {}
        context.look_again = self.look_again

    def open(self, rule: Rule, group: asyncio.TaskGroup) -> None:
        """Begins to watch and to take in."""
        self._context.journal.remember_rule(rule.name, rule.to_json())
        intake = Intake(self._context, rule)
        loop = asyncio.get_running_loop()

        def report(name: str, news: list[Sighting] | Walked) -> None:
            with suppress(RuntimeError):  # the loop has ended while a walk was still under way
                loop.call_soon_threadsafe(self._heard, name, news)

        watcher = Watcher(_inbox(rule), list(self._context.journal.known(rule.name)), report)
        self._desks[rule.name] = Desk(rule, intake, watcher, group.create_task(intake.run()))
        watcher.start()

    def close(self, name: str) -> None:
        """Takes nothing more in for this rule; its jobs go on."""
        desk = self._desks.pop(name)
        desk.watcher.stop()
        desk.task.cancel()

    def close_all(self) -> None:
        """Takes nothing more in."""
        for name in list(self._desks):
            self.close(name)

    def look_again(self, job: Job) -> None:
        """Whatever lies at the job's source now is news."""
        desk = self._desks.get(job.rule)
        if desk is not None:
            desk.watcher.forget(os.fspath(job.relative))
            desk.watcher.hint(os.fspath(job.source))

    def all(self) -> list[Desk]:
        """The rules at work."""
        return list(self._desks.values())

    @property
    def walked(self) -> bool:
        """Whether every inbox was walked at least once, or found to be away."""
        return bool(self._desks) and all(desk.walked for desk in self._desks.values())

    @property
    def settling(self) -> int:
        """Number of files that were seen and are not yet jobs."""
        return sum(desk.intake.waiting for desk in self._desks.values())

    def _heard(self, name: str, news: list[Sighting] | Walked) -> None:
        """A watcher's report, in the event loop."""
        desk = self._desks.get(name)
        if desk is None:
            return
        if not isinstance(news, Walked):
            desk.intake.sighted(news)
            return
        path = desk.rule.inbox
        if news.warning:
            _log.warning("inbox.not_watched", rule=name, path=path, reason=news.warning)
        if news.away is not None and news.away != desk.away:
            _log.error("inbox.away", rule=name, path=path, reason=news.away)
        if news.away is None and desk.away is not None:
            _log.info("inbox.back", rule=name, path=path)
        is_news = not desk.walked or news.away != desk.away
        desk.walked, desk.away = True, news.away
        if is_news:
            self._changed()


def _inbox(rule: Rule) -> Inbox:
    native = {Observer.NATIVE: True, Observer.POLLING: False, Observer.AUTO: None}[rule.observer]
    return Inbox(
        rule=rule.name,
        path=rule.inbox,
        names=NameFilter(rule.include, rule.exclude),
        recursive=rule.recursive,
        follow_symlinks=rule.follow_symlinks,
        native=native,
        rescan_interval=rule.rescan_interval,
    )
