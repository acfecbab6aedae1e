"""The command line: `main` runs one command, `arguments` declares them, `commands` holds a module for each."""
