"""What systemd itself says of a unit."""

import subprocess
from pathlib import Path


def check_unit(unit: Path) -> None:
    """Sound, in one file of its own name, and with an exposure of 2.0 at most; `systemd-analyze` must be there."""
    told = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    # it answers 0 for unknown keys; only stderr speaks
    assert (told.returncode, told.stderr) == (0, "")
    exposed = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert exposed.returncode == 0, exposed.stdout.splitlines()[-1:]
