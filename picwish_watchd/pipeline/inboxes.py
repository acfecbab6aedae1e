"""The rules at work: for each a watcher in its own thread and an intake in the event loop."""

import asyncio
import os
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import structlog

from picwish_watchd.config.schema import Observer, Rule
from picwish_watchd.errors import JournalTemporaryError
from picwish_watchd.fs.mounts import concern, locations, overlap
from picwish_watchd.inbox.name_filter import NameFilter
from picwish_watchd.inbox.scanner import Sighting
from picwish_watchd.inbox.watcher import Inbox, Walked, Watcher
from picwish_watchd.job import Job
from picwish_watchd.pipeline.admission import forbidden_to
from picwish_watchd.pipeline.context import Context
from picwish_watchd.pipeline.intake import Intake

_log = structlog.get_logger()

_UNREAD = "it, or a file in it, cannot be read; passed over, and tried again at each walk"
_AGAIN = "what it leads to is looked into by another path already, and no file is taken twice"
_NO_VERDICT = "for a minute, no file in it came to be judged; does its mount hang, or the process that decodes?"
_OVERDUE = 60.0  # seconds beyond three intervals until a walk counts as hanging, and for judging some files


@dataclass(slots=True)
class Desk:
    """One rule at work."""

    rule: Rule
    intake: Intake
    watcher: Watcher
    task: asyncio.Task[None]
    walked: bool = False  #: at least once
    away: str | None = None  #: why its inbox cannot be walked
    heard: float = 0.0  #: when the last walk ended (monotonic seconds)
    unread: tuple[str, ...] = ()  #: subfolders that could not be read, or not all files of
    again: bool = False  #: whether links in it lead into folders that are walked by another path
    observer: str | None = None  #: "native", "partial" or "polling"; None: not walked yet
    place: str = ""  #: where the inbox's path leads
    waits: bool = False  #: told that what judges its files does not come back
    recalled: int = 0  #: of the files that are news again, so many were looked for

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
        loop = asyncio.get_running_loop()

        def report(_name: str, news: list[Sighting] | Walked) -> None:
            with suppress(RuntimeError):  # the loop has ended while a walk was still under way
                loop.call_soon_threadsafe(self._heard, desk, news)

        watcher = Watcher(
            self._inbox(rule),
            list(self._context.journal.known(rule.name)),
            report,
            self._context.journal.folder_mount(rule.inbox),
        )
        intake = Intake(self._context, rule, gone=watcher.forget)
        task = group.create_task(intake.run())
        desk = Desk(rule, intake, watcher, task, heard=self._context.clock.monotonic())
        self._desks[rule.name] = desk
        self._start(desk)

    def renew(self, group: asyncio.TaskGroup) -> None:
        """The configuration was read again: what is new in it begins, what left it or is not as it was ends.

        That goes also for a rule whose links may lead elsewhere by now because other rules' folders have changed.
        """
        rules = {rule.name: rule for rule in self._context.config.rules}
        for name, desk in list(self._desks.items()):
            rule = rules.get(name)
            barred = desk.watcher.inbox.forbidden
            moved = desk.rule.follow_symlinks and set(barred) != set(forbidden_to(self._context.config, desk.rule))
            if rule != desk.rule or moved:
                self.close(name)
        for name, rule in rules.items():
            if name not in self._desks:
                self.open(rule, group)

    def close(self, name: str) -> None:
        """Takes nothing more in for this rule; its jobs go on."""
        desk = self._desks.pop(name)
        desk.watcher.stop()
        desk.task.cancel()

    def close_all(self) -> None:
        """Takes nothing more in."""
        for name in list(self._desks):
            self.close(name)

    def walk_now(self, points: Collection[str]) -> None:
        """At these points mounts have come or gone: the inboxes that are concerned are walked at once."""
        for desk in self._desks.values():
            inbox = os.fspath(desk.rule.inbox)
            if concern(points, inbox) or concern(points, desk.place or inbox):
                desk.watcher.walk_now()

    def look_again(self, job: Job) -> None:
        """Whatever lies at the job's source now is news."""
        desk = self._desks.get(job.rule)
        if desk is not None:
            desk.watcher.recall(os.fspath(job.relative), os.fspath(job.source))

    def all(self) -> list[Desk]:
        """The rules at work."""
        return list(self._desks.values())

    @property
    def walked(self) -> bool:
        """Whether every inbox was walked at least once, or found to be away."""
        return bool(self._desks) and all(desk.walked or desk.away for desk in self._desks.values())

    @property
    def recalling(self) -> bool:
        """Whether a file that is news again was not looked for yet, in an inbox that can be walked."""
        return any(desk.recalled < desk.watcher.recalled and desk.away is None for desk in self._desks.values())

    @property
    def settling(self) -> int:
        """Number of files that were seen and are not yet jobs."""
        return sum(desk.intake.waiting for desk in self._desks.values())

    @property
    def unreadable(self) -> int:
        """Number of files and subfolders that could not be read."""
        return sum(desk.intake.unreadable + len(desk.unread) for desk in self._desks.values())

    def look_after(self) -> None:
        """Alive but blind is a failure: an inbox whose walk is overdue counts as away; a watcher that died ends us."""
        now = self._context.clock.monotonic()
        for desk in self._desks.values():
            if desk.watcher.ident is None:
                self._start(desk)
            elif not desk.watcher.is_alive():
                raise RuntimeError(f"the watcher of rule {desk.rule.name} has died")
            overdue = now - desk.heard
            if overdue > 3 * desk.rule.rescan_interval + _OVERDUE and desk.away is None:
                self._set_away(desk, f"{desk.rule.inbox}: no walk has ended for {overdue:.0f} s; does its mount hang?")
            self._look_after_judging(desk)

    def _look_after_judging(self, desk: Desk) -> None:
        waits = desk.intake.judging > _OVERDUE
        if waits and not desk.waits:
            _log.warning("judging.waits", rule=desk.rule.name, path=desk.rule.inbox, reason=_NO_VERDICT)
        desk.waits = waits

    def _start(self, desk: Desk) -> None:
        try:
            desk.watcher.start()
        except RuntimeError as error:
            self._set_away(desk, f"{desk.rule.inbox}: the system grants no thread to watch it ({error}); tried again")

    def _heard(self, desk: Desk, news: list[Sighting] | Walked) -> None:
        """A watcher's report, in the event loop."""
        name = desk.rule.name
        if self._desks.get(name) is not desk:
            return
        if not isinstance(news, Walked):
            desk.intake.sighted(news)
            return
        if news.away is None:
            self._context.tally.walked(name, news.seconds)
        path = desk.rule.inbox
        if news.warning:
            _log.warning("inbox.not_watched", rule=name, path=path, reason=news.warning)
        for folder in set(news.unread) - set(desk.unread):
            _log.warning("folder.unreadable", rule=name, path=path / folder, reason=_UNREAD)
        if news.again and not desk.again:
            example = path / min(news.again)
            _log.warning("link.not_entered", rule=name, path=example, number=len(news.again), reason=_AGAIN)
        self._learn_mount(desk, news)
        self._tell_observer(desk, news)
        desk.again, desk.recalled = bool(news.again), news.recalled
        desk.unread, desk.place, desk.heard = news.unread, news.place, self._context.clock.monotonic()
        first, desk.walked = not desk.walked, True
        if not self._set_away(desk, news.away) and first:
            self._changed()

    def _tell_observer(self, desk: Desk, news: Walked) -> None:
        observer = "polling" if news.polling else "partial" if news.partial else "native"
        if news.away is None and observer != desk.observer:
            desk.observer = observer
            reason = news.polling or news.partial or "the kernel tells of new files; walks look after it"
            _log.info("inbox.observed", rule=desk.rule.name, path=desk.rule.inbox, observer=observer, reason=reason)
            if desk.walked:
                self._changed()

    def _learn_mount(self, desk: Desk, news: Walked) -> None:
        """The first good walk says where the inbox lives; from then on only there, until `approve` forgets it."""
        journal, path = self._context.journal, desk.rule.inbox
        home = journal.folder_mount(path)
        if home is None and news.away is None and news.mount is not None:
            try:
                journal.remember_folder(path, news.mount)
                home = news.mount
            except JournalTemporaryError as error:  # the next walk says it again
                self._context.waits.tell(error, rule=desk.rule.name)
        approved = home is None and desk.watcher.home is not None
        desk.watcher.home = home
        if approved:
            desk.watcher.hint()

    def _set_away(self, desk: Desk, reason: str | None) -> bool:
        """Whether that was news."""
        before, desk.away = desk.away, reason
        if before == reason:
            return False
        if reason is not None:
            _log.error("inbox.away", rule=desk.rule.name, path=desk.rule.inbox, reason=reason)
        else:
            _log.info("inbox.back", rule=desk.rule.name, path=desk.rule.inbox)
        self._changed()
        return True

    def _inbox(self, rule: Rule) -> Inbox:
        native = {Observer.NATIVE: True, Observer.POLLING: False, Observer.AUTO: None}[rule.observer]
        return Inbox(
            rule=rule.name,
            path=rule.inbox,
            names=NameFilter(rule.include, rule.exclude),
            recursive=rule.recursive,
            follow_symlinks=rule.follow_symlinks,
            native=native,
            rescan_interval=rule.rescan_interval,
            forbidden=forbidden_to(self._context.config, rule),
            rival=partial(self._rival, rule),
        )

    def _rival(self, rule: Rule) -> str | None:
        """In the watcher's thread: why the rule has to wait: mounts have made its inbox one with another rule's.

        The one that is watched already stays so; before that, the first in the configuration goes first.
        """
        rules = [each.name for each in self._context.config.rules]
        earlier = set(rules[: rules.index(rule.name)] if rule.name in rules else ())
        others = {
            desk.rule: desk.place or os.fspath(desk.rule.inbox)
            for desk in self.all()
            if desk.rule != rule and desk.away is None and (desk.walked or desk.rule.name in earlier)
        }
        if not others:
            return None
        mine = os.path.realpath(rule.inbox)
        lies = locations((mine, *others.values()))
        for other, place in others.items():
            if overlap(lies[mine], lies[place]):
                return (
                    f"it is one with the inbox of rule {other.name} ({other.inbox}), or one lies in the other, by a "
                    "mount: what lies there would be paid twice; unmount one of them"
                )
        return None
