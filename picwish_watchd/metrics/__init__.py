"""Metrics and health over HTTP, for the machines of an administrator.

``loop_state`` is what the event loop knows, ``outbox_probe`` checks folders, and ``probes`` combines both with the
figures of the journal. ``health`` decides whether work can continue, ``collector`` exports the figures to Prometheus,
``http_server`` serves both, and ``exporter`` is what the daemon holds. Requests are answered in threads of their own
and cost the event loop nothing.

``collector`` and ``http_server`` need prometheus-client, which is an extra. They are imported only if ``http`` is
configured.
"""

from picwish_watchd.metrics.exporter import Exporter

__all__ = ["Exporter"]
