"""picwish-watchd: hot folders for PicWish's Advanced Image Enhancer.

Three laws, in this order: never pay twice, never lose an image, never miss an image.

Where to look, from the ground up (imports only point downward):

* ``job``, ``state``, ``errors``, ``clock``, ``pricing``, ``wording``, ``redaction``, ``counters``: the words that
  everything else uses.
* ``fs`` and ``runtime``: file systems, threads and wake-ups. ``log``: structured logging.
* ``config`` reads the YAML file. ``journal`` is the queue, the history and the ledger of credits, and the only package
  that speaks SQL. ``picwish`` is the only package that calls the API. ``images`` judges pictures, ``inbox`` finds them.
* ``outbox`` keeps and publishes results. ``scheduling`` decides whose request goes when, and what may be spent.
* ``pipeline`` holds the steps of one image, a file a step: ``intake``, ``gate``, ``prepare``, ``submit``, ``collect``,
  ``deliver``, ``dispose``; ``recover`` runs first at each start.
* ``reporting`` explains (``why``, ``plan``, ``status``), ``notify`` tells people, ``metrics`` tells machines. The
  pipeline knows none of them.
* ``daemon`` puts everything together. ``simulator`` replaces PicWish in the demo and in the tests. ``cli`` is what a
  person types.
"""

__version__ = "0.1.0"
