"""Validate images: recognise their format, check that they are complete, and make large ones smaller.

* ``formats`` detects the format by the first bytes; ``completeness`` and ``tiff`` check that the file is complete.
* ``inspect`` validates one image, ``link_files`` one ``.url`` or ``.webloc`` file, ``validate`` either of them.
* ``validation_process`` runs ``validate`` in a separate process with bounded memory.
* ``downscale`` makes an image smaller that exceeds PicWish's limits, in the process of ``downscale_process``.
"""
