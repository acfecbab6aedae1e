"""``python -m tests``: everything that must hold, in one command; the first thing that does not ends it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
WORKERS = str(2 * (os.cpu_count() or 2))  # tests wait more than they work
STEPS = (
    ("ruff", "format", "--check", "."),
    ("ruff", "check", "."),
    ("mypy", "-p", "picwish_watchd", "-p", "tests", "-p", "benchmarks"),
    ("coverage", "erase"),
    ("coverage", "run", "-m", "pytest", "-n", WORKERS, "--dist", "worksteal"),
    ("coverage", "combine", "--quiet"),
    ("coverage", "report"),
)


def main() -> int:
    """Runs the steps with this interpreter's tools; further arguments go to pytest."""
    for step in STEPS:
        command = [sys.executable, "-m", *step, *(sys.argv[1:] if "pytest" in step else [])]
        print("$", " ".join(("python", *command[1:])), flush=True)
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
