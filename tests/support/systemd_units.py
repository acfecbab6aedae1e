"""Checks of a unit file with systemd's own tools."""

import subprocess
from pathlib import Path


def check_unit(unit: Path) -> None:
    """Assert that a unit file is valid alone and has an exposure level of at most 2.0. `systemd-analyze` must exist."""
    verification = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    # The exit code is 0 for unknown keys too; only stderr reports them.
    assert (verification.returncode, verification.stderr) == (0, "")
    exposure = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert exposure.returncode == 0, exposure.stdout.splitlines()[-1:]
