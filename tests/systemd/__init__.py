"""The service under a real systemd: ``python -m tests.systemd``, as root; no part of the suite: it takes a minute."""
