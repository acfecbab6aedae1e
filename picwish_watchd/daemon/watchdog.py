"""Feed systemd's watchdog while the daemon makes progress, and only then (`WatchdogSec=` in systemd.service(5))."""

import structlog

from picwish_watchd.daemon.sd_notify import ServiceManager
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pipeline.inboxes import Inboxes
from picwish_watchd.runtime.heartbeat import Heartbeat
from picwish_watchd.scheduling.rate_limiter import RateLimiter

_log = structlog.get_logger()


def list_overdue_loops(heartbeat: Heartbeat, rate_limiter: RateLimiter, grace: float) -> list[str]:
    """Return the names of the loops whose last turn should have come more than ``grace`` seconds ago."""
    return heartbeat.overdue(grace) + (["pacer"] if rate_limiter.overdue_seconds > grace else [])


class Watchdog:
    """Watches the loops of the daemon. Without a ping in time, systemd restarts the service."""

    def __init__(
        self, context: StepContext, inboxes: Inboxes, rate_limiter: RateLimiter, service_manager: ServiceManager
    ) -> None:
        self._context = context
        self._inboxes = inboxes
        self._rate_limiter = rate_limiter
        self._service_manager = service_manager

    async def run(self) -> None:
        """Ping systemd three times in each watchdog period while all loops turn. Return if systemd does not ask."""
        period, logged = self._service_manager.watchdog_seconds, ""
        while period is not None:
            stuck = ", ".join(self.list_stuck_parts(period / 3))
            if not stuck:
                self._service_manager.ping_watchdog()
            elif stuck != logged:
                reason = f"no progress: {stuck}; unless it continues, systemd restarts the service"
                _log.error("daemon.stuck", reason=reason)
            logged = stuck
            # Look again soon: after a pause of the whole machine, everything is late for a moment.
            await self._context.clock.sleep(min(1.0, period / 10) if stuck else period / 3)

    def list_stuck_parts(self, grace: float) -> list[str]:
        """Return what should have made progress more than ``grace`` seconds ago and has not; empty if all is well.

        A scan that hangs does not count. It blocks only its own inbox, and a new daemon would hang in it, too.
        """
        if self._context.stopping:
            # The grace period of the shutdown bounds it. The loops end one by one.
            return []
        stuck = list_overdue_loops(self._context.heartbeat, self._rate_limiter, grace)
        watchers = [inbox.watcher for inbox in self._inboxes.list_active()]
        if watchers and not any(watcher.is_alive() or watcher.ident is None for watcher in watchers):
            stuck.append("watchers")
        return stuck
