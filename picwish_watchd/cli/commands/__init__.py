"""One module for each command; `run(args)` runs it and returns the exit code."""
