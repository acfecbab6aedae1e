"""The configuration: a YAML file becomes one frozen `Config`, or one error that lists all of its faults.

* ``locate`` finds the file, ``loader`` reads it, ``api_key`` reads the API key.
* ``units``, ``strings`` and ``fields`` validate single values; ``secret_files`` reads files that hold a secret.
* ``schema`` has the keys, ``notifiers`` those of `notify:`, ``model`` puts the sections together.
* ``cross_checks`` refuses dangerous combinations; ``schema_errors`` and ``error_messages`` word the faults;
  ``yaml_document`` knows the line of each value.
* ``summary`` is what the daemon reports of its configuration; ``fingerprint`` identifies the file without parsing it.

This file imports nothing: pydantic and the schema take 0.2 s to load, more than most commands need.
"""
