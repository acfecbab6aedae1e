"""Deliver files: keep paid results in the spool, publish them in the outbox, move originals.

* ``spool`` keeps downloaded results on the local disk; ``publish`` puts them into the outbox.
* ``filenames`` makes names that a file system accepts; ``originals`` moves or deletes sources.
* ``availability`` says whether a folder can be used, and why not.
"""
