"""The configuration: a YAML file becomes one frozen `Config`, or an error that lists all of its faults.

* ``locate`` finds the file, ``loader`` reads it, ``api_key`` reads the API key.
* ``units``, ``strings`` and ``fields`` validate single values; ``secret_files`` reads files of secrets.
* ``schema`` names the keys, ``notifiers`` those of `notify:`, ``model`` puts the sections together.
* ``cross_checks`` refuses dangerous combinations; ``error_messages`` words the faults; ``yaml_document`` knows lines.
* ``summary`` is what the running daemon records of its configuration; ``fingerprint`` identifies the file on disk.

This file imports nothing: pydantic and the schema take 0.2 s to load, more than most commands need.
"""
