# Shortcuts for development. `make check` is what must pass before a commit.
PYTHON ?= .venv/bin/python

.PHONY: help setup check test fast fmt types demo bench manual
help:     ## list these targets
	@grep -E '^[a-z]+: +##' $(MAKEFILE_LIST) | sed -E 's/: +## /\t/'
setup:    ## make .venv with everything that development needs
	python3 -m venv .venv && .venv/bin/pip install --quiet --editable '.[dev]'
check:    ## format, lint, types and all tests, with coverage (about six minutes)
	$(PYTHON) -m tests
test:     ## all tests, without coverage
	$(PYTHON) -m pytest -q -n 4 --dist worksteal
fast:     ## the unit tests and the rules of the house
	$(PYTHON) -m pytest -q -n 4 tests/unit tests/test_*.py
fmt:      ## format and fix what can be fixed automatically
	$(PYTHON) -m ruff check --fix . && $(PYTHON) -m ruff format .
types:    ## type check
	$(PYTHON) -m mypy -p picwish_watchd -p tests -p benchmarks
demo:     ## one round trip against the simulator
	$(PYTHON) -m picwish_watchd demo
bench:    ## the short benchmarks
	$(PYTHON) -m benchmarks --only startup scan latency
manual:   ## write the manual page and the completions again
	$(PYTHON) -m tests.support.render_manual
