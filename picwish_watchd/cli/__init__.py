"""The command line: `main` runs one command, `arguments` declares them, `commands` holds a module for each."""

from picwish_watchd.cli.main import main as main
