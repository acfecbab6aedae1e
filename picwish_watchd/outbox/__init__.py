"""Write files: keep paid results in the spool, publish them in the outbox, move originals.

* ``spool`` keeps downloaded results on the local disk; ``publish`` puts them into the outbox.
* ``filenames`` makes names that a file system accepts; ``originals`` moves or deletes sources.
* ``availability`` checks whether a folder can be used, and says why not.
"""
