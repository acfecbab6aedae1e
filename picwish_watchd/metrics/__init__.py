"""Metrics and health: what an administrator's machines ask the daemon, by HTTP.

``live`` is what the event loop tells of itself, ``outboxes`` looks at folders, ``survey`` puts both together with what
the journal says, ``health`` judges, ``families`` spells it for Prometheus, ``web`` serves it, ``exporter`` is what the
daemon holds. All of it works in threads of its own: being asked costs the event loop nothing.

``families`` and ``web`` know prometheus-client, which is an extra; they are imported only where ``http`` is configured.
"""

from picwish_watchd.metrics.exporter import Exporter

__all__ = ["Exporter"]
