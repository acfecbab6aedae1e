"""How fast, how lean and how sparing the daemon is: one command each, ``python -m benchmarks.NAME``; see README.md."""
