"""The steps of one image, one file each, from ``intake`` to ``dispose``.

``intake`` (with ``admission``) takes a settled file into the journal, ``gate`` decides whether anything may be bought,
``prepare`` reads or downscales it, ``submit`` pays, ``collect`` polls and downloads, ``deliver`` publishes, and
``dispose`` treats the original. ``recover`` runs first at each start.
"""
