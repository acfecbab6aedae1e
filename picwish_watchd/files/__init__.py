"""The only room that touches images and folders.

On the way in: ``observe`` and ``walk`` find files, ``settle`` waits until one stands still, ``images`` judges it
(``kinds`` tells what it is by its first bytes, ``whole`` and ``tiff`` whether all of it is there; ``verdicts`` are the
answers), ``links`` reads link files. On the way out: ``spool`` keeps what was paid for, ``names`` makes a name for it,
``publish`` puts it into the outbox, ``originals`` disposes of the source. ``reading`` and ``place`` are the doors to
the disk: bytes in, names out.

Everything here is synchronous and is meant for worker threads.
"""
