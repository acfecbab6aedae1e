"""Logging of structured events, one line each. `setup` configures it; `stream` writes without blocking the daemon."""
