"""POSIX primitives: open files safely, write them atomically, find their mounts, and bound the wait for a hung path.

* ``safe_open`` reads a file without following links or opening devices.
* ``atomic_write`` makes a file appear under its final name complete or not at all; ``durability`` syncs.
* ``mounts`` finds the mount that a path is on; ``hang_guard`` calls into a path with a time limit.
* ``verdicts`` are the possible outcomes of looking at a file.

Everything here is synchronous and is meant for worker threads.
"""
