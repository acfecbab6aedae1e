"""The journal: queue, history and ledger in one SQLite file. Only this package speaks SQL.

* ``writer`` changes it. ``queue_reader`` finds the daemon's next work, ``reader`` reads jobs, and ``status_reader``
  reads the figures of `status` without loading more.
* ``connection`` opens and migrates it, ``integrity`` refuses damaged or lost files, ``locks`` excludes other writers.
* ``totals``, ``job_counts``, ``credit_sums`` and ``run_outcomes`` count; ``prune`` and ``vacuum`` make it smaller.

This file imports nothing, so that a command that only reads does not load what writes.
"""
