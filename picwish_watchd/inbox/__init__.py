"""Find files in an inbox that are ready: file events as hints, full scans as the truth.

* ``scanner`` walks a folder; ``name_filter`` decides which names count.
* ``watcher`` turns kernel events into hints to scan at once.
* ``settling`` waits until a file has stopped changing.
"""
