"""Run every check and every test with one command: ``python -m tests``. The first failure ends the run."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Tests spend most of their time waiting, so there are more workers than cores.
WORKERS = str(2 * (os.cpu_count() or 2))
CHECKS = (
    ("mypy", "-p", "picwish_watchd", "-p", "tests", "-p", "benchmarks"),
    ("ruff", "format", "--check", "."),
    ("ruff", "check", "."),
)
# Compile all test modules once, or each worker would do so. Its errors are reported again by the test run.
COMPILE = ("pytest", "--collect-only")
STEPS = (
    ("coverage", "erase"),
    ("coverage", "run", "-m", "pytest", "-n", WORKERS, "--dist", "worksteal"),
    ("coverage", "combine", "--quiet"),
    ("coverage", "report"),
)


def start_step(step: tuple[str, ...], *further: str, out: int | None = None) -> subprocess.Popen[bytes]:
    """Start a step with this interpreter. Bytecode is written, because hundreds of processes follow and read it."""
    command = [sys.executable, "-m", *step, *further]
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    print("$", " ".join(("python", *command[1:])), flush=True)
    return subprocess.Popen(command, cwd=ROOT, env=environ, stdout=out)


def main() -> int:
    """Run the checks concurrently, then the steps in order. Further arguments go to pytest."""
    compiling = start_step(COMPILE, out=subprocess.DEVNULL)
    codes = [check.wait() for check in [start_step(check) for check in CHECKS]]
    compiling.wait()
    for code in filter(None, codes):
        return code
    for step in STEPS:
        code = start_step(step, *(sys.argv[1:] if "pytest" in step else [])).wait()
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
