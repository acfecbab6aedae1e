"""Benchmarks of the daemon's speed, memory and API use: ``python -m benchmarks.NAME``. See README.md."""
