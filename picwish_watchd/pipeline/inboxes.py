"""The rules at work: for each a watcher in its own thread and an intake in the event loop."""

import asyncio
import os
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import structlog

from picwish_watchd.config.schema import ObserverKind, Rule
from picwish_watchd.errors import JournalTemporaryError
from picwish_watchd.fs.mounts import device_locations, has_overlap, is_path_affected
from picwish_watchd.inbox.name_filter import NameFilter
from picwish_watchd.inbox.scanner import FileSeen
from picwish_watchd.inbox.watcher import Inbox, ScanReport, Watcher
from picwish_watchd.job import Job
from picwish_watchd.pipeline.admission import forbidden_link_targets
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pipeline.intake import Intake

_log = structlog.get_logger()

_UNREADABLE_REASON = "it, or a file in it, cannot be read; passed over, and tried again at each walk"
_REPEATED_LINK_REASON = "what it leads to is looked into by another path already, and no file is taken twice"
_STALLED_REASON = "for a minute, no file in it came to be judged; does its mount hang, or the process that decodes?"
# seconds beyond three intervals until a walk counts as hanging, and for judging some files
_OVERDUE_SECONDS = 60.0


@dataclass(slots=True)
class ActiveInbox:
    """One rule at work."""

    rule: Rule
    intake: Intake
    watcher: Watcher
    task: asyncio.Task[None]
    #: at least once
    has_scanned: bool = False
    #: why its inbox cannot be walked
    unavailable: str | None = None
    #: when the last walk ended (monotonic seconds)
    last_scan_at: float = 0.0
    #: subfolders that could not be read, or not all files of
    unreadable_folders: tuple[str, ...] = ()
    #: whether links in it lead into folders that are walked by another path
    has_repeated_links: bool = False
    #: "native", "partial" or "polling"; None: not walked yet
    observer: str | None = None
    #: where the inbox's path leads
    real_path: str = ""
    #: told that what judges its files does not come back
    is_stalled: bool = False
    #: of the files that are news again, so many were looked for
    rescan_count: int = 0

    @property
    def is_watching(self) -> bool:
        """Whether its inbox is seen."""
        return self.has_scanned and self.unavailable is None


class Inboxes:
    """All rules that are in force. ``changed`` is called when an inbox came, went, or was walked for the first time."""

    def __init__(self, context: StepContext, *, changed: Callable[[], None]) -> None:
        self._context = context
        self._on_change = changed
        self._active: dict[str, ActiveInbox] = {}

    def open(self, rule: Rule, group: asyncio.TaskGroup) -> None:
        """Begins to watch and to take in."""
        self._context.journal.save_rule_settings(rule.name, rule.to_json())
        loop = asyncio.get_running_loop()

        def report(_name: str, news: list[FileSeen] | ScanReport) -> None:
            # the loop has ended while a walk was still under way
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._on_watcher_event, desk, news)

        watcher = Watcher(
            self._build_inbox(rule),
            list(self._context.journal.known_files(rule.name)),
            report,
            self._context.journal.folder_mount(rule.inbox),
        )
        intake = Intake(self._context, rule, gone=watcher.forget_file)
        task = group.create_task(intake.run())
        desk = ActiveInbox(rule, intake, watcher, task, last_scan_at=self._context.clock.monotonic())
        self._active[rule.name] = desk
        self._start_watcher(desk)

    def apply_config(self, group: asyncio.TaskGroup) -> None:
        """The configuration was read again: what is new in it begins, what left it or is not as it was ends.

        That goes also for a rule whose links may lead elsewhere by now because other rules' folders have changed.
        """
        rules = {rule.name: rule for rule in self._context.config.rules}
        for name, desk in list(self._active.items()):
            rule = rules.get(name)
            barred = desk.watcher.inbox.forbidden_folders
            moved = desk.rule.follow_symlinks and set(barred) != set(
                forbidden_link_targets(self._context.config, desk.rule)
            )
            if rule != desk.rule or moved:
                self.close(name)
        for name, rule in rules.items():
            if name not in self._active:
                self.open(rule, group)

    def close(self, name: str) -> None:
        """Takes nothing more in for this rule; its jobs go on."""
        desk = self._active.pop(name)
        desk.watcher.stop()
        desk.task.cancel()

    def close_all(self) -> None:
        """Takes nothing more in."""
        for name in list(self._active):
            self.close(name)

    def rescan_after_mount_change(self, points: Collection[str]) -> None:
        """At these points mounts have come or gone: the inboxes that are concerned are walked at once."""
        for desk in self._active.values():
            inbox = os.fspath(desk.rule.inbox)
            if is_path_affected(points, inbox) or is_path_affected(points, desk.real_path or inbox):
                desk.watcher.rescan_after_mount_change()

    def rescan_source(self, job: Job) -> None:
        """Whatever lies at the job's source now is news."""
        desk = self._active.get(job.rule)
        if desk is not None:
            desk.watcher.rescan_file(os.fspath(job.relative), os.fspath(job.source))

    def list_active(self) -> list[ActiveInbox]:
        """The rules at work."""
        return list(self._active.values())

    @property
    def has_scanned_all(self) -> bool:
        """Whether every inbox was walked at least once, or found to be away."""
        return bool(self._active) and all(desk.has_scanned or desk.unavailable for desk in self._active.values())

    @property
    def has_pending_rescans(self) -> bool:
        """Whether a file that is news again was not looked for yet, in an inbox that can be walked."""
        return any(
            desk.rescan_count < desk.watcher.rescan_count and desk.unavailable is None for desk in self._active.values()
        )

    @property
    def settling_count(self) -> int:
        """Number of files that were seen and are not yet jobs."""
        return sum(desk.intake.settling_count for desk in self._active.values())

    @property
    def unreadable_count(self) -> int:
        """Number of files and subfolders that could not be read."""
        return sum(desk.intake.unreadable_count + len(desk.unreadable_folders) for desk in self._active.values())

    def check_watchers(self) -> None:
        """Alive but blind is a failure: an inbox whose walk is overdue counts as away; a watcher that died ends us."""
        now = self._context.clock.monotonic()
        for desk in self._active.values():
            if desk.watcher.ident is None:
                self._start_watcher(desk)
            elif not desk.watcher.is_alive():
                raise RuntimeError(f"the watcher of rule {desk.rule.name} has died")
            overdue = now - desk.last_scan_at
            if overdue > 3 * desk.rule.rescan_interval + _OVERDUE_SECONDS and desk.unavailable is None:
                self._set_unavailable(
                    desk, f"{desk.rule.inbox}: no walk has ended for {overdue:.0f} s; does its mount hang?"
                )
            self._check_validation(desk)

    def _check_validation(self, desk: ActiveInbox) -> None:
        waits = desk.intake.validation_seconds > _OVERDUE_SECONDS
        if waits and not desk.is_stalled:
            _log.warning("judging.waits", rule=desk.rule.name, path=desk.rule.inbox, reason=_STALLED_REASON)
        desk.is_stalled = waits

    def _start_watcher(self, desk: ActiveInbox) -> None:
        try:
            desk.watcher.start()
        except RuntimeError as error:
            self._set_unavailable(
                desk, f"{desk.rule.inbox}: the system grants no thread to watch it ({error}); tried again"
            )

    def _on_watcher_event(self, desk: ActiveInbox, news: list[FileSeen] | ScanReport) -> None:
        """A watcher's report, in the event loop."""
        name = desk.rule.name
        if self._active.get(name) is not desk:
            return
        if not isinstance(news, ScanReport):
            desk.intake.record_sightings(news)
            return
        if news.unavailable is None:
            self._context.counters.observe_scan(name, news.seconds)
        path = desk.rule.inbox
        if news.warning:
            _log.warning("inbox.not_watched", rule=name, path=path, reason=news.warning)
        for folder in set(news.unreadable_folders) - set(desk.unreadable_folders):
            _log.warning("folder.unreadable", rule=name, path=path / folder, reason=_UNREADABLE_REASON)
        if news.repeated_links and not desk.has_repeated_links:
            example = path / min(news.repeated_links)
            _log.warning(
                "link.not_entered",
                rule=name,
                path=example,
                number=len(news.repeated_links),
                reason=_REPEATED_LINK_REASON,
            )
        self._record_mount(desk, news)
        self._update_observer(desk, news)
        desk.has_repeated_links, desk.rescan_count = bool(news.repeated_links), news.rescan_count
        desk.unreadable_folders, desk.real_path, desk.last_scan_at = (
            news.unreadable_folders,
            news.real_path,
            self._context.clock.monotonic(),
        )
        first, desk.has_scanned = not desk.has_scanned, True
        if not self._set_unavailable(desk, news.unavailable) and first:
            self._on_change()

    def _update_observer(self, desk: ActiveInbox, news: ScanReport) -> None:
        observer = "polling" if news.why_polling else "partial" if news.why_partial else "native"
        if news.unavailable is None and observer != desk.observer:
            desk.observer = observer
            reason = news.why_polling or news.why_partial or "the kernel tells of new files; walks look after it"
            _log.info("inbox.observed", rule=desk.rule.name, path=desk.rule.inbox, observer=observer, reason=reason)
            if desk.has_scanned:
                self._on_change()

    def _record_mount(self, desk: ActiveInbox, news: ScanReport) -> None:
        """The first good walk says where the inbox lives; from then on only there, until `approve` forgets it."""
        journal, path = self._context.journal, desk.rule.inbox
        home = journal.folder_mount(path)
        if home is None and news.unavailable is None and news.mount is not None:
            try:
                journal.save_folder(path, news.mount)
                home = news.mount
            except JournalTemporaryError as error:
                # the next walk says it again
                self._context.journal_outage.report(error, rule=desk.rule.name)
        approved = home is None and desk.watcher.mount is not None
        desk.watcher.mount = home
        if approved:
            desk.watcher.request_scan()

    def _set_unavailable(self, desk: ActiveInbox, reason: str | None) -> bool:
        """Whether that was news."""
        before, desk.unavailable = desk.unavailable, reason
        if before == reason:
            return False
        if reason is not None:
            _log.error("inbox.away", rule=desk.rule.name, path=desk.rule.inbox, reason=reason)
        else:
            _log.info("inbox.back", rule=desk.rule.name, path=desk.rule.inbox)
        self._on_change()
        return True

    def _build_inbox(self, rule: Rule) -> Inbox:
        native = {ObserverKind.NATIVE: True, ObserverKind.POLLING: False, ObserverKind.AUTO: None}[rule.observer]
        return Inbox(
            rule=rule.name,
            path=rule.inbox,
            name_filter=NameFilter(rule.include, rule.exclude),
            recursive=rule.recursive,
            follow_symlinks=rule.follow_symlinks,
            use_events=native,
            rescan_interval=rule.rescan_interval,
            forbidden_folders=forbidden_link_targets(self._context.config, rule),
            find_conflict=partial(self._find_conflict, rule),
        )

    def _find_conflict(self, rule: Rule) -> str | None:
        """In the watcher's thread: why the rule has to wait: mounts have made its inbox one with another rule's.

        The one that is watched already stays so; before that, the first in the configuration goes first.
        """
        rules = [each.name for each in self._context.config.rules]
        earlier = set(rules[: rules.index(rule.name)] if rule.name in rules else ())
        others = {
            desk.rule: desk.real_path or os.fspath(desk.rule.inbox)
            for desk in self.list_active()
            if desk.rule != rule and desk.unavailable is None and (desk.has_scanned or desk.rule.name in earlier)
        }
        if not others:
            return None
        mine = os.path.realpath(rule.inbox)
        lies = device_locations((mine, *others.values()))
        for other, place in others.items():
            if has_overlap(lies[mine], lies[place]):
                return (
                    f"it is one with the inbox of rule {other.name} ({other.inbox}), or one lies in the other, by a "
                    "mount: what lies there would be paid twice; unmount one of them"
                )
        return None
