"""Logging: structured events, one line each; JSON or console."""

from picwish_watchd.log.setup import configure_logging as configure_logging
from picwish_watchd.log.setup import drain_logs as drain_logs
from picwish_watchd.log.setup import set_level as set_level
