"""Look once a second at what changed outside the event loop, and keep the reports on the daemon up to date."""

from contextlib import suppress

import structlog

from picwish_watchd.clock import Clock
from picwish_watchd.daemon.assembly import Services
from picwish_watchd.daemon.process import READY_TIMEOUT
from picwish_watchd.daemon.sd_notify import ServiceManager
from picwish_watchd.errors import JournalTemporaryError
from picwish_watchd.reporting.status_line import render_status_line

_log = structlog.get_logger()

#: Seconds between looks at what other processes did to the journal.
_MONITOR_INTERVAL = 1.0


class Monitor:
    """Notices commands and mounts, reports the status, and tells systemd when the daemon is ready."""

    def __init__(self, services: Services, service_manager: ServiceManager, clock: Clock) -> None:
        self._services = services
        self._service_manager = service_manager
        self._clock = clock
        #: Whether READY=1 was sent.
        self.is_ready = False

    async def run(self) -> None:
        """Look once a second until cancelled."""
        services = self._services
        context = services.context
        ready_at_latest = self._clock.monotonic() + READY_TIMEOUT
        version = context.journal.data_version()
        while True:
            await self._clock.sleep(_MONITOR_INTERVAL)
            if points := services.mount_watcher.poll_changed_points():
                services.inboxes.rescan_after_mount_change(points)
                # The mount may be an outbox that jobs wait for.
                context.journal.end_pauses()
            if (current := self._read_data_version(version)) != version:
                version = current
                # The change may be a person's `retry`.
                context.journal.end_pauses()
                context.wakeups.notify_steps()
            services.inboxes.check_watchers()
            services.report_publisher.refresh()
            context.journal_outage.check_recovery()
            if self._clock.monotonic() > ready_at_latest:
                # An inbox whose scan hangs must not keep systemd waiting for the others.
                self._mark_ready()
            self.update_status()
            services.exporter.update_loop_state()

    def on_change(self) -> None:
        """Report a change that is visible from outside at once."""
        self._services.exporter.update_loop_state()
        if self._services.inboxes.has_scanned_all:
            self._mark_ready()
        self._services.report_publisher.publish()

    def update_status(self) -> None:
        """Send the status line to systemd (`STATUS=` in sd_notify(3))."""
        if not self._service_manager.is_available:
            return
        services, context = self._services, self._services.context
        with suppress(JournalTemporaryError):
            line = render_status_line(
                context.config, context.journal, context.clock.now(), gate=services.gate, inboxes=services.inboxes
            )
            error = services.report_publisher.reload_error
            self._service_manager.send_status(f"{error}; {line}" if error else line)

    def _mark_ready(self) -> None:
        if not self.is_ready:
            self.is_ready = True
            self._service_manager.notify_ready()
            self.update_status()
            _log.info("daemon.ready")

    def _read_data_version(self, last: int) -> int:
        """Return the version of the journal's content, or ``last`` while the journal cannot answer."""
        context = self._services.context
        with suppress(JournalTemporaryError):
            last = context.journal.data_version()
            context.heartbeat.beat("journal")
        return last
