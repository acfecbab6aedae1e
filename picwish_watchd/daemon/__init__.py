"""The daemon: assembly, lifecycle, watchdog, drain (``run --once``) and systemd."""
