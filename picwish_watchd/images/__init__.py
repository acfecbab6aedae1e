"""Look at pictures: what kind they are, whether they are whole, and how to make them smaller.

* ``formats`` tells the kind by the first bytes; ``completeness`` and ``tiff`` tell whether all of the file is there.
* ``inspect`` decodes; ``validate`` puts these together for one file; ``validation_process`` runs it in a process of
  its own with bounded memory.
* ``downscale`` fits a picture into the limits, in ``downscale_process``.
* ``link_files`` reads ``.url`` and ``.webloc`` files.
"""
