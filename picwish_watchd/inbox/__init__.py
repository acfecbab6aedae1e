"""Find files in an inbox that are ready. File events are hints; full scans decide.

* ``scanner`` lists new and changed files; ``name_filter`` decides which names count.
* ``watcher`` runs the scans; ``event_listener`` and ``inotify_events`` make it scan at once after a kernel event.
* ``settling`` waits until a file has stopped changing.
"""
