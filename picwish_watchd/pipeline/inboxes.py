"""Run the rules: for each one a watcher in its own thread and an intake in the event loop."""

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

_UNREADABLE_REASON = (
    "it, or a file in it, cannot be read; it is skipped and tried again at each scan; check its permissions"
)
_REPEATED_LINK_REASON = "its target is already scanned by another path, and no file is taken twice"
_STALLED_REASON = (
    "no file has been validated for 60 s; the mount or the validation process may be hung; check the mount"
)
# Seconds beyond three intervals after which a scan counts as hung, and seconds after which a validation does.
_OVERDUE_SECONDS = 60.0


@dataclass(slots=True)
class ActiveInbox:
    """A rule that is in force: its watcher, its intake, and what the last scan of its inbox found."""

    rule: Rule
    intake: Intake
    watcher: Watcher
    task: asyncio.Task[None]
    #: Whether it was scanned at least once.
    has_scanned: bool = False
    #: Why the inbox cannot be scanned; None if it can.
    unavailable: str | None = None
    #: When the last scan ended (monotonic seconds).
    last_scan_at: float = 0.0
    #: Subfolders that could not be read, or not all of whose files could.
    unreadable_folders: tuple[str, ...] = ()
    #: Whether links in it lead into folders that are scanned by another path.
    has_repeated_links: bool = False
    #: "native", "partial" or "polling"; None before the first scan.
    observer: str | None = None
    #: The inbox's path with symbolic links resolved; empty before the first scan.
    real_path: str = ""
    #: Whether it was logged that the validation of its files hangs.
    is_stalled: bool = False
    #: Number of requested rescans of single files that the watcher has carried out.
    rescan_count: int = 0

    @property
    def is_watching(self) -> bool:
        """Return whether the inbox was scanned and can be scanned."""
        return self.has_scanned and self.unavailable is None


class Inboxes:
    """All rules that are in force.

    ``on_change`` is called when an inbox becomes available or unavailable, was scanned for the first time, or is
    observed in another way.
    """

    def __init__(self, context: StepContext, *, on_change: Callable[[], None]) -> None:
        self._context = context
        self._on_change = on_change
        self._active: dict[str, ActiveInbox] = {}

    def open(self, rule: Rule, group: asyncio.TaskGroup) -> None:
        """Start to watch the inbox of ``rule`` and to take in its files."""
        self._context.journal.save_rule_settings(rule.name, rule.to_json())
        loop = asyncio.get_running_loop()

        def forward(_name: str, report: list[FileSeen] | ScanReport) -> None:
            # The loop may end while a scan is still running.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._on_watcher_event, inbox, report)

        watcher = Watcher(
            self._build_inbox(rule),
            list(self._context.journal.known_files(rule.name)),
            forward,
            self._context.journal.folder_mount(rule.inbox),
        )
        intake = Intake(self._context, rule, on_missing=watcher.forget_file)
        task = group.create_task(intake.run())
        inbox = ActiveInbox(rule, intake, watcher, task, last_scan_at=self._context.clock.monotonic())
        self._active[rule.name] = inbox
        self._start_watcher(inbox)

    def apply_config(self, group: asyncio.TaskGroup) -> None:
        """Apply a configuration that was read again: open new rules, close removed ones, and reopen changed ones.

        A rule that follows links is also reopened if the folders that its links must not enter have changed.
        """
        rules = {rule.name: rule for rule in self._context.config.rules}
        for name, inbox in list(self._active.items()):
            rule = rules.get(name)
            forbidden = inbox.watcher.inbox.forbidden_folders
            links_changed = inbox.rule.follow_symlinks and set(forbidden) != set(
                forbidden_link_targets(self._context.config, inbox.rule)
            )
            if rule != inbox.rule or links_changed:
                self.close(name)
        for name, rule in rules.items():
            if name not in self._active:
                self.open(rule, group)

    def close(self, name: str) -> None:
        """Take in no more files of this rule. Its jobs continue."""
        inbox = self._active.pop(name)
        inbox.watcher.stop()
        inbox.task.cancel()

    def close_all(self) -> None:
        """Take in no more files of any rule."""
        for name in list(self._active):
            self.close(name)

    def rescan_after_mount_change(self, points: Collection[str]) -> None:
        """Scan at once the inboxes that are affected by mounts that appeared or disappeared at ``points``."""
        for inbox in self._active.values():
            path = os.fspath(inbox.rule.inbox)
            if is_path_affected(points, path) or is_path_affected(points, inbox.real_path or path):
                inbox.watcher.rescan_after_mount_change()

    def rescan_source(self, job: Job) -> None:
        """Treat the file that is now at the job's source path as new."""
        inbox = self._active.get(job.rule)
        if inbox is not None:
            inbox.watcher.rescan_file(os.fspath(job.relative), os.fspath(job.source))

    def list_active(self) -> list[ActiveInbox]:
        """Return the inboxes of all rules that are in force."""
        return list(self._active.values())

    @property
    def has_scanned_all(self) -> bool:
        """Return whether every inbox was scanned at least once or is unavailable."""
        return bool(self._active) and all(inbox.has_scanned or inbox.unavailable for inbox in self._active.values())

    @property
    def has_pending_rescans(self) -> bool:
        """Return whether an inbox that is available has rescans of single files to carry out."""
        return any(
            inbox.rescan_count < inbox.watcher.rescan_count and inbox.unavailable is None
            for inbox in self._active.values()
        )

    @property
    def settling_count(self) -> int:
        """Return the number of files that were seen and are not yet jobs."""
        return sum(inbox.intake.settling_count for inbox in self._active.values())

    @property
    def unreadable_count(self) -> int:
        """Return the number of files and subfolders that could not be read."""
        return sum(inbox.intake.unreadable_count + len(inbox.unreadable_folders) for inbox in self._active.values())

    def check_watchers(self) -> None:
        """Start watchers that have no thread yet, and mark an inbox whose scan is overdue as unavailable.

        Raises RuntimeError if the thread of a watcher has died: the daemon would otherwise miss images.
        """
        now = self._context.clock.monotonic()
        for inbox in self._active.values():
            if inbox.watcher.ident is None:
                self._start_watcher(inbox)
            elif not inbox.watcher.is_alive():
                raise RuntimeError(f"the watcher of rule {inbox.rule.name} has died")
            silence = now - inbox.last_scan_at
            if silence > 3 * inbox.rule.rescan_interval + _OVERDUE_SECONDS and inbox.unavailable is None:
                self._set_unavailable(
                    inbox, f"{inbox.rule.inbox}: no scan has ended for {silence:.0f} s; its mount may be hung"
                )
            self._check_validation(inbox)

    def _check_validation(self, inbox: ActiveInbox) -> None:
        is_stalled = inbox.intake.validation_seconds > _OVERDUE_SECONDS
        if is_stalled and not inbox.is_stalled:
            _log.warning("judging.waits", rule=inbox.rule.name, path=inbox.rule.inbox, reason=_STALLED_REASON)
        inbox.is_stalled = is_stalled

    def _start_watcher(self, inbox: ActiveInbox) -> None:
        try:
            inbox.watcher.start()
        except RuntimeError as error:
            self._set_unavailable(
                inbox,
                f"{inbox.rule.inbox}: the system grants no thread to watch it ({error}); it is tried again",
            )

    def _on_watcher_event(self, inbox: ActiveInbox, report: list[FileSeen] | ScanReport) -> None:
        """Apply the report of a watcher. Runs in the event loop."""
        name = inbox.rule.name
        if self._active.get(name) is not inbox:
            return
        if not isinstance(report, ScanReport):
            inbox.intake.record_sightings(report)
            return
        if report.unavailable is None:
            self._context.counters.observe_scan(name, report.seconds)
        path = inbox.rule.inbox
        if report.warning:
            _log.warning("inbox.not_watched", rule=name, path=path, reason=report.warning)
        for folder in set(report.unreadable_folders) - set(inbox.unreadable_folders):
            _log.warning("folder.unreadable", rule=name, path=path / folder, reason=_UNREADABLE_REASON)
        if report.repeated_links and not inbox.has_repeated_links:
            example = path / min(report.repeated_links)
            _log.warning(
                "link.not_entered",
                rule=name,
                path=example,
                number=len(report.repeated_links),
                reason=_REPEATED_LINK_REASON,
            )
        self._record_mount(inbox, report)
        self._update_observer(inbox, report)
        inbox.has_repeated_links, inbox.rescan_count = bool(report.repeated_links), report.rescan_count
        inbox.unreadable_folders, inbox.real_path, inbox.last_scan_at = (
            report.unreadable_folders,
            report.real_path,
            self._context.clock.monotonic(),
        )
        first, inbox.has_scanned = not inbox.has_scanned, True
        if not self._set_unavailable(inbox, report.unavailable) and first:
            self._on_change()

    def _update_observer(self, inbox: ActiveInbox, report: ScanReport) -> None:
        observer = "polling" if report.why_polling else "partial" if report.why_partial else "native"
        if report.unavailable is None and observer != inbox.observer:
            inbox.observer = observer
            reason = report.why_polling or report.why_partial or "the kernel reports new files; scans are the fallback"
            _log.info("inbox.observed", rule=inbox.rule.name, path=inbox.rule.inbox, observer=observer, reason=reason)
            if inbox.has_scanned:
                self._on_change()

    def _record_mount(self, inbox: ActiveInbox, report: ScanReport) -> None:
        """Record the mount of the inbox at its first good scan. It is used only there until `approve` resets that."""
        journal, path = self._context.journal, inbox.rule.inbox
        mount = journal.folder_mount(path)
        if mount is None and report.unavailable is None and report.mount is not None:
            try:
                journal.save_folder(path, report.mount)
                mount = report.mount
            except JournalTemporaryError as error:
                # The next scan reports the mount again.
                self._context.journal_outage.report(error, rule=inbox.rule.name)
        approved = mount is None and inbox.watcher.mount is not None
        inbox.watcher.mount = mount
        if approved:
            inbox.watcher.request_scan()

    def _set_unavailable(self, inbox: ActiveInbox, reason: str | None) -> bool:
        """Set why the inbox is unavailable, or None; log a change and return whether there was one."""
        old_reason, inbox.unavailable = inbox.unavailable, reason
        if old_reason == reason:
            return False
        if reason is not None:
            _log.error("inbox.away", rule=inbox.rule.name, path=inbox.rule.inbox, reason=reason)
        else:
            _log.info("inbox.back", rule=inbox.rule.name, path=inbox.rule.inbox)
        self._on_change()
        return True

    def _build_inbox(self, rule: Rule) -> Inbox:
        use_events = {ObserverKind.NATIVE: True, ObserverKind.POLLING: False, ObserverKind.AUTO: None}[rule.observer]
        return Inbox(
            rule=rule.name,
            path=rule.inbox,
            name_filter=NameFilter(rule.include, rule.exclude),
            recursive=rule.recursive,
            follow_symlinks=rule.follow_symlinks,
            use_events=use_events,
            rescan_interval=rule.rescan_interval,
            forbidden_folders=forbidden_link_targets(self._context.config, rule),
            find_conflict=partial(self._find_conflict, rule),
        )

    def _find_conflict(self, rule: Rule) -> str | None:
        """Return why the rule must wait because a mount made its inbox overlap with another rule's, or None.

        An inbox that is already watched stays so; otherwise the first rule in the configuration takes precedence. Runs
        in the watcher's thread.
        """
        rules = [each.name for each in self._context.config.rules]
        earlier = set(rules[: rules.index(rule.name)] if rule.name in rules else ())
        others = {
            inbox.rule: inbox.real_path or os.fspath(inbox.rule.inbox)
            for inbox in self.list_active()
            if inbox.rule != rule and inbox.unavailable is None and (inbox.has_scanned or inbox.rule.name in earlier)
        }
        if not others:
            return None
        own_path = os.path.realpath(rule.inbox)
        locations = device_locations((own_path, *others.values()))
        for other, other_path in others.items():
            if has_overlap(locations[own_path], locations[other_path]):
                return (
                    f"because of a mount, it is the inbox of rule {other.name} ({other.inbox}), or one contains "
                    "the other: its images would be paid twice; unmount one of them"
                )
        return None
