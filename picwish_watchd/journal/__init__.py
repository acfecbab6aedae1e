"""The journal: queue, history and ledger in one SQLite file; the only package that speaks SQL.

* ``writer`` changes it, ``reader`` reads jobs, ``status_reader`` reads what `status` shows without loading more.
* ``connection`` opens and upgrades it; ``integrity`` refuses damaged or lost files; ``locks`` keeps one daemon for one
  journal.
* ``totals``, ``job_counts``, ``credit_sums`` and ``run_outcomes`` add up; ``prune`` and ``vacuum`` make it smaller.

This file imports nothing, so a command that only reads does not load what writes.
"""
