"""Logging: structured events, one line each; JSON or console."""

from picwish_watchd.log.setup import drain as drain
from picwish_watchd.log.setup import set_level as set_level
from picwish_watchd.log.setup import setup as setup
