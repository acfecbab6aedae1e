"""Answer questions about jobs and files without changing anything: ``why``, ``plan``, ``status`` and the forecast."""
