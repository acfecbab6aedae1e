"""Read the configuration and the key again while the daemon runs (SIGHUP)."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from picwish_watchd.config.model import Config
from picwish_watchd.daemon.assembly import Services, build_client, connection_settings
from picwish_watchd.daemon.monitor import Monitor
from picwish_watchd.daemon.reload_warnings import warn_stuck_folders
from picwish_watchd.daemon.sd_notify import ServiceManager
from picwish_watchd.errors import WatchdError
from picwish_watchd.pipeline.recover import warn_orphaned_jobs

_log = structlog.get_logger()

#: Reads configuration and key again. Raises `WatchdError`.
ConfigLoader = Callable[[], tuple[Config, str]]


class Reloader:
    """Replaces the configuration of running services. A faulty configuration changes nothing."""

    def __init__(
        self,
        services: Services,
        monitor: Monitor,
        service_manager: ServiceManager,
        task_group: asyncio.TaskGroup,
        load_config: ConfigLoader,
    ) -> None:
        self._services = services
        self._monitor = monitor
        self._service_manager = service_manager
        self._task_group = task_group
        self._load_config = load_config

    def reload(self) -> None:
        """Load the configuration and apply it, or keep the old one and log why."""
        publisher = self._services.report_publisher
        self._service_manager.notify_reloading()
        try:
            config, key = self._load_config()
            # This comes before anything is closed: a journal that is full or locked then changes nothing.
            for rule in config.rules:
                self._services.context.journal.save_rule_settings(rule.name, rule.to_json())
        except WatchdError as error:
            _log.error("config.refused", reason=error.message)
            publisher.reload_error = f"reload refused, the old configuration is in force ({error.message})"
            self._monitor.on_change()
        else:
            publisher.reload_error = ""
            self._apply_config(config, key)
        finally:
            if self._monitor.is_ready:
                self._service_manager.notify_ready()
            self._monitor.update_status()

    def _apply_config(self, config: Config, key: str) -> None:
        services, context = self._services, self._services.context
        if config.journal != context.config.journal:
            _log.warning("config.needs_restart", key="journal")
            # The open journal stays in use, and its spool. The digest goes: the file no longer describes this daemon.
            config = replace(config, journal=context.config.journal, digest=None)
        if connection_settings(config) == connection_settings(context.config):
            context.client.replace_key(key)
        else:
            services.retired_clients.append(context.client)
            context.client = build_client(config, key, context.counters)
        previous, context.config = context.config, config
        warn_stuck_folders(context, previous)
        services.rate_limiter.set_qps(config.api.qps)
        services.inboxes.apply_config(self._task_group)
        services.exporter.reopen(config.http)
        services.dispatcher.signal_config_change()
        self._monitor.on_change()
        services.gate.probe_now()
        _log.info("config.reloaded", rules=len(config.rules))
        warn_orphaned_jobs(context)
