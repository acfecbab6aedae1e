"""The steps of one image, one file each, from ``intake`` to ``dispose``.

``intake`` (with ``admission``) adds a settled file to the journal as a job, ``gate`` decides whether anything may be
submitted, ``prepare`` reads or downscales the image, ``submit`` sends it and so pays, ``collect`` polls and downloads,
``deliver`` publishes the result, and ``dispose`` moves or deletes the original. ``recover`` runs first at each start.
"""
