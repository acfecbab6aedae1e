"""POSIX primitives: open files safely, write them atomically, know mounts, survive paths that hang.

* ``safe_open`` reads a file without following links or opening devices.
* ``atomic_write`` makes a file appear under its final name complete or not at all.
* ``mounts`` knows which mount a path is on; ``hang_guard`` asks a path within a time limit.
* ``verdicts`` are the answers that a look at a file can have.

Everything here is synchronous and is meant for worker threads.
"""
