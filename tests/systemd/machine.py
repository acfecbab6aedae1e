"""A container with Debian 12 and systemd as its first process."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
_PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-venv"
# Longest time of a boot in seconds.
_BOOT_TIMEOUT = 60.0


class Machine:
    """A container that boots on entry, from a base system that is prepared once. Changes are lost on exit.

    The mirrors are those of the host's own apt and pip. The container shares the host's network, so that it can
    reach the simulator on loopback.
    """

    def __init__(self, base: Path) -> None:
        self._base = base
        self._leader = 0

    def prepare(self) -> None:
        """Create the base system and gather our wheel with its dependencies."""
        self._base.mkdir(parents=True, exist_ok=True)
        if not (self._base / "made").exists():
            process = _run_on_host(
                "apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)", "Created-By: Packages"
            )
            mirror = next((line.split()[0] for line in process.splitlines() if line.endswith(" bookworm")), "")
            words = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(self._base / "root")]
            subprocess.run([*words, *([mirror] if mirror else [])], check=True, stdout=subprocess.DEVNULL)
            (self._base / "made").touch()
        wheels = self._base / "root/wheels"
        pip = [sys.executable, "-m", "pip"]
        for old in wheels.glob("picwish*"):
            old.unlink()
        subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), str(ROOT)], check=True)
        [ours] = wheels.glob("picwish*.whl")
        fetch = ["download", "-qq", "--only-binary=:all:", "--python-version=3.11", "--dest", str(wheels)]
        subprocess.run([*pip, *fetch, f"{ours}[metrics]"], check=True)

    def __enter__(self) -> "Machine":
        self._log = (self._base / "console.log").open("wb")
        words = [
            "systemd-nspawn",
            "--quiet",
            "--directory",
            str(self._base / "root"),
            "--volatile=overlay",
            "--boot",
            "--register=no",
            "--keep-unit",
            "--console=pipe",
            "--machine=picwish-proof",
            "--resolv-conf=off",
            "--bind=/dev/fuse",
        ]
        self._child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        until = time.monotonic() + _BOOT_TIMEOUT
        while time.monotonic() < until and self._child.poll() is None:
            self._leader = self._leader or _find_init_pid(self._child.pid)
            if self._leader and self.run("systemctl", "is-system-running", check=False).strip() == "running":
                return self
            time.sleep(0.2)
        self.__exit__()
        raise SystemExit(f"systemd did not boot: see {self._base / 'console.log'}")

    def __exit__(self, *_: object) -> None:
        if self._leader and self._child.poll() is None:
            self.run("systemctl", "--force", "--force", "poweroff", check=False)
        try:
            self._child.wait(20)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._log.close()

    def run(self, *words: str, check: bool = True, data: bytes = b"") -> str:
        """Run a command in the container and return its standard output and standard error."""
        enter = ["nsenter", f"--target={self._leader}", "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w"]
        plain = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0"}
        process = subprocess.run(
            [*enter, *words], input=data, stdout=-1, stderr=subprocess.STDOUT, env=plain, check=False
        )
        text = process.stdout.decode("utf-8", "replace")
        if check and process.returncode:
            raise SystemExit(f"{' '.join(words)}: {process.returncode}\n{text}")
        return text

    def run_script(self, script: str, *, check: bool = True) -> str:
        """Run a shell script in the container and return its output."""
        return self.run("sh", "-ec", script, check=check)

    def write_file(self, path: str, data: str | bytes, *, mode: str = "0644", owner: str = "root:root") -> None:
        """Write a file in the container in one step."""
        content = data.encode() if isinstance(data, str) else data
        script = (
            'mkdir -p "$(dirname "$1")"; cat > "$1.part"; chmod "$2" "$1.part"; chown "$3" "$1.part"; mv "$1.part" "$1"'
        )
        self.run("sh", "-ec", script, "sh", path, mode, owner, data=content)

    def unit_properties(self, unit: str, *names: str) -> dict[str, str]:
        """Return properties of a unit."""
        output = self.run("systemctl", "show", unit, *(f"--property={name}" for name in names))
        return dict(line.partition("=")[::2] for line in output.splitlines())


def _run_on_host(*words: str) -> str:
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return ""


def _find_init_pid(pid: int) -> int:
    """Return the host's PID of the container's process 1, or 0."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return next(
            (int(c) for c in children if os.readlink(f"/proc/{c}/ns/pid") != os.readlink("/proc/self/ns/pid")), 0
        )
    except OSError:
        return 0
