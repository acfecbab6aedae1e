"""The service under a real systemd: ``python -m tests.systemd``, as root.

It takes a minute and is not part of the suite.
"""
