"""picwish-watchd: hot folders for PicWish's Advanced Image Enhancer.

Three laws, in this order: never pay twice, never lose an image, never miss an image.

A tour of the house, along the path of one picture, from the ground up (imports only point downward):

* ``job``, ``state``, ``errors``, ``clock``: the words that everything else speaks: a job, its states, legal moves.
  ``secrecy`` hides what was read as a secret.
* ``config`` reads the YAML file into one frozen value, or tells every fault at once; ``log`` sets up the log.
* ``files`` is the only room that touches images and folders: ``observe`` finds a file, ``settle`` waits until it
  stands still, ``images`` judges it (with ``inspector`` in a process of its own), ``spool`` keeps what was paid for,
  ``publish`` puts it into the outbox.
* ``journal`` is the only room that speaks SQL. It is the queue, the history and the ledger of credits.
* ``picwish`` is the only room that calls the API. It turns every answer and every failure into a value.
* ``pipeline`` is the story of one image, a file a step: ``intake``, ``gate``, ``prepare``, ``submit``, ``collect``,
  ``deliver``, ``dispose``; ``recover`` runs first at each start, and ``desks`` hold the rules at work. ``why`` (with
  ``scene``, ``sight`` and ``standing``) and ``plan`` only look.
* ``metrics`` tells monitoring machines how all that goes, by HTTP; ``tally`` is what it counts.
* ``notify`` tells people of what they should know: it looks on, and never gets in the way.
* ``daemon`` puts the steps together: lock, signals, systemd (``sd_notify``).
* ``cli`` is what a person types; ``simulator`` stands in for PicWish in the demo and in the tests.
"""

__version__ = "0.1.0"
