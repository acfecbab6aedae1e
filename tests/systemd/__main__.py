"""Boot a Debian 12, install the service and check what administrators rely on; each check prints a line."""

import argparse
import asyncio
import hashlib
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import yaml

from picwish_watchd.simulator import Settings, Simulator
from tests.support.fake_receivers import WebhookReceiver
from tests.support.http_client import free_port, get
from tests.support.sample_images import make_image
from tests.systemd.machine import Machine

KEY = "a-key-for-the-proof-7319"
TOKEN = "a-token-for-the-proof-2204"
UNIT = "picwish-watchd"
PROGRAM = "/opt/picwish-watchd/bin/picwish-watchd"
CONFIG = "/etc/picwish-watchd/config.yaml"
NAS = "/srv/nas"
#: A command for `notify:` that writes down its user and permissions.
NOTIFY_SCRIPT = f"""\
#!/bin/sh
exec >{NAS}/in/.output 2>/dev/null
id -un
test -n "$PICWISH_SUBJECT" && test -z "$CREDENTIALS_DIRECTORY" && echo subject
touch /etc/nope && echo writes-etc || echo no-etc
chown root {NAS}/in/.output && echo chowns || echo no-chown
grep -q 'NoNewPrivs:.1' /proc/self/status && echo no-new-privileges
"""
CONFINED_OUTPUT = ["picwish", "subject", "no-etc", "no-chown", "no-new-privileges"]
#: Shorter times for a unit that takes minutes as shipped.
QUICK_DROP_IN = "[Unit]\nStartLimitIntervalSec=60\n[Service]\nRestartSec=1\nWatchdogSec=6\n"
#: A program that mounts a file system at its argument and answers nothing until it is killed.
HANGING_MOUNT_PROGRAM = """\
import ctypes, os, sys, time
server = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={server},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"dead", os.fsencode(sys.argv[1]), b"fuse", 0, options):
    sys.exit(os.strerror(ctypes.get_errno()))
time.sleep(600)
"""


class SystemdChecks:
    """The checks, in an order in which each leaves the service as the next one needs it."""

    def __init__(self, machine: Machine, simulator: Simulator) -> None:
        self._machine = machine
        self._simulator = simulator
        self._seed = 0
        self.failures = 0

    def run(self) -> None:
        """Run all checks."""
        for step in (
            self.check_install,
            self.check_start,
            self.check_processing,
            self.check_key_secrecy,
            self.check_status,
            self.check_reload,
            self.check_watchdog,
            self.check_sigkill,
            self.check_hanging_mount,
            self.check_stop,
            self.check_monitoring,
            self.check_late_mount,
            self.check_wrong_configuration,
            self.check_crash_loop,
            self.check_template_instance,
            self.check_uninstall,
            self.check_charges,
        ):
            step()

    def check(self, what: str, holds: object, actual: object = "") -> None:
        """Print the result of a check."""
        self.failures += not holds
        print(f"{'ok  ' if holds else 'FAIL'}  {what}{'' if holds or actual == '' else f': {actual}'}", flush=True)

    def check_install(self) -> None:
        machine = self._machine
        machine.run_script(
            "python3 -m venv /opt/picwish-watchd;"
            "/opt/picwish-watchd/bin/pip install --quiet --no-index --find-links /wheels 'picwish-watchd[metrics]';"
            "groupadd nas; useradd --system --gid nas --no-create-home picwish; useradd --gid nas anna;"
            f"mkdir -p {NAS}/in {NAS}/out {NAS}/archive; chown -R anna:nas {NAS}; chmod -R 2775 {NAS}"
        )
        self._configure()
        machine.write_file("/etc/picwish-watchd/api.key", KEY, mode="0600")
        output = machine.run(PROGRAM, "service", "install", "--config", CONFIG, "--group", "nas")
        self.check(
            "service install writes the unit", "wrote /etc/systemd/system/picwish-watchd.service" in output, output
        )
        file = f"/etc/systemd/system/{UNIT}.service"
        output = machine.run("systemd-analyze", "verify", "--man=no", file, check=False)
        self.check("systemd-analyze verify finds no problem", output == "", output)
        machine.write_file(f"{file}.d/quick.conf", QUICK_DROP_IN)
        machine.run("systemctl", "daemon-reload")
        output = machine.run("systemd-analyze", "security", "--threshold=20", UNIT, check=False).splitlines()[-1]
        self.check(f"systemd-analyze security: {output.removeprefix('→ ')}", " OK " in output)

    def check_start(self) -> None:
        began = time.monotonic()
        self._machine.run("systemctl", "start", UNIT)
        facts = self._unit_properties("ActiveState", "SubState", "Type", "NRestarts")
        good = facts == {"ActiveState": "active", "SubState": "running", "Type": "notify", "NRestarts": "0"}
        self.check(f"READY=1 after {time.monotonic() - began:.1f} s", good, facts)

    def check_processing(self) -> None:
        self.drop_image("one.jpg")
        self.drop_image("Reise 2019/zwei.png", kind="png")
        self.drop_image("large.jpg", width=5000, height=300)
        self.check(
            "images are processed, one of them downscaled",
            self.wait_until(lambda: self.count_done() == 3),
            self.read_log(),
        )
        output = self._machine.run_script(f"stat -c '%U %G %a' '{NAS}/out/Reise 2019' '{NAS}/out/Reise 2019/zwei.png'")
        shared = output.split() == ["picwish", "nas", "2775", "picwish", "nas", "664"]
        self.check("results and new folders are the group's", shared, output)
        output = self._machine.run_script(f"ls {NAS}/archive '{NAS}/archive/Reise 2019'; ls {NAS}/in", check=False)
        self.check("originals of another user are moved to the archive", "one.jpg" in output.split("\n\n")[0], output)

    def check_key_secrecy(self) -> None:
        machine, pid = self._machine, self.main_pid()
        for place in ("environ", "cmdline"):
            self.check(
                f"the key is not in the process's {place}", KEY not in machine.run("cat", f"/proc/{pid}/{place}")
            )
        self.check("the key is not in the log", KEY not in self.read_log(lines=10_000))
        self.check("the key is not in the unit", KEY not in machine.run("systemctl", "cat", UNIT))
        output = machine.run(
            "setpriv",
            "--reuid=picwish",
            "--regid=nas",
            "--clear-groups",
            "cat",
            "/etc/picwish-watchd/api.key",
            check=False,
        )
        self.check("the service's user cannot read the key's file", "Permission denied" in output, output)

    def check_status(self) -> None:
        good = self.wait_until(lambda: self.status_text() == "idle; 15 of 500 credits today", seconds=5)
        self.check(f"STATUS: {self.status_text()}", good)

    def check_reload(self) -> None:
        machine = self._machine
        pid = self.main_pid()
        self._configure(rules=[{"name": "scans", "inbocks": "x"}])
        machine.run("systemctl", "reload", UNIT)
        self.check(
            f"a faulty reload: {self.status_text()[:90]}...", "refused" in self.status_text() and self.main_pid() == pid
        )
        self.drop_image("still.jpg")
        good = self.wait_until(lambda: "still.jpg" in machine.run("ls", f"{NAS}/archive"))
        self.check("... and the old configuration stays in force", good, self.read_log())
        self._configure(more={"name": "more", "inbox": f"{NAS}/more"})
        machine.run_script(f"mkdir {NAS}/more; chown anna:nas {NAS}/more; chmod 2775 {NAS}/more")
        machine.run("systemctl", "reload", UNIT)
        self.drop_image("b.jpg", inbox="more")
        self.check(
            "a good reload adds a new rule", self.wait_until(lambda: self.count_done() == 5) and self.main_pid() == pid
        )
        self.check(
            "... and the status no longer has the refusal", "refused" not in self.status_text(), self.status_text()
        )

    def check_watchdog(self) -> None:
        self._slow_down()
        for number in range(3):
            self.drop_image(f"stopped {number}.jpg")
        self.wait_until(lambda: self._count_creates() >= 7)
        pid = self.main_pid()
        self._machine.run_script(f"kill -STOP {pid}")
        again = self.wait_until(lambda: self.main_pid() not in (pid, "0"), seconds=30)
        self.check("SIGSTOP: the watchdog starts it again", again, self._unit_properties("Result", "NRestarts"))
        self.check("... and it resumes", self.wait_until(lambda: self.count_done() == 8), self.read_log())

    def check_sigkill(self) -> None:
        for round_ in range(2):
            before = self._count_creates()
            for number in range(3):
                self.drop_image(f"killed {round_} {number}.jpg")
            self.wait_until(partial(self._has_more_creates, before))
            self._machine.run_script(f"kill -KILL {self.main_pid()}")
        good = self.wait_until(lambda: self.count_done() + self._count_jobs("held") == 14)
        self.check("SIGKILL with jobs in flight: it starts again and resumes", good, self.read_log())
        self._machine.run("systemctl", "reset-failed", UNIT)

    def check_hanging_mount(self) -> None:
        """Check an inbox on a FUSE file system whose server never replies to FUSE_INIT."""
        machine, before = self._machine, self.count_done()
        self._speed_up()
        machine.run_script(f"mkdir {NAS}/dead; chown anna:nas {NAS}/dead")
        machine.write_file("/opt/hang.py", HANGING_MOUNT_PROGRAM)
        machine.run("systemd-run", "--unit=hang", "python3", "/opt/hang.py", f"{NAS}/dead")
        if not self.wait_until(lambda: f"{NAS}/dead fuse" in machine.run("cat", "/proc/mounts"), seconds=5):
            print(f"skip  a mount that hangs: {self.read_log('hang')}")
            return
        self._configure(more={"name": "dead", "inbox": f"{NAS}/dead"})
        machine.run("systemctl", "reload", UNIT)
        pid = self.main_pid()
        # This is two and a half times WatchdogSec.
        time.sleep(15)
        self.drop_image("beside.jpg")
        good = self.wait_until(lambda: self.count_done() == before + 1) and self.main_pid() == pid
        self.check("a hanging inbox blocks neither the watchdog nor the other inbox", good, self.read_log())
        began = time.monotonic()
        machine.run("systemctl", "restart", UNIT, check=False)
        self.drop_image("after.jpg")
        good = self.wait_until(lambda: self.count_done() == before + 2)
        self.check(f"... and a restart beside it takes {time.monotonic() - began:.1f} s", good, self.read_log())
        machine.run_script(f"systemctl stop hang; umount -l {NAS}/dead; rmdir {NAS}/dead")
        self._configure()
        machine.run("systemctl", "reload", UNIT)
        self._slow_down()

    def check_stop(self) -> None:
        for number in range(4):
            self.drop_image(f"stop {number}.jpg")
        before = self._count_creates()
        self.wait_until(lambda: self._count_creates() > before)
        began = time.monotonic()
        self._machine.run("systemctl", "stop", UNIT)
        facts = self._unit_properties("Result", "ExecMainStatus", "ActiveState")
        good = facts == {"Result": "success", "ExecMainStatus": "0", "ActiveState": "inactive"}
        self.check(f"stop with jobs in flight takes {time.monotonic() - began:.1f} s and ends with 0", good, facts)
        self._speed_up()

    def check_monitoring(self) -> None:
        """Check metrics, health and notifications under the unit's confinement; only root can read their secrets."""
        machine, port, dropin = self._machine, free_port(), f"/etc/systemd/system/{UNIT}.service.d/secrets.conf"
        with WebhookReceiver() as webhook:
            for name, secret in (("http.token", TOKEN), ("hook.url", webhook.url)):
                machine.write_file(f"/etc/picwish-watchd/{name}", secret, mode="0600")
            files = ("http.token", "hook.url")
            lines = "".join(f"LoadCredential={name}:/etc/picwish-watchd/{name}\n" for name in files)
            machine.write_file(dropin, f"[Service]\n{lines}")
            machine.write_file("/usr/local/bin/notify-script", NOTIFY_SCRIPT, mode="0755")
            self._configure(
                top={
                    "http": {"listen": f"127.0.0.1:{port}", "token_file": "http.token"},
                    "notify": [
                        {"to": "webhook", "url_file": "hook.url"},
                        {"to": "command", "run": ["/usr/local/bin/notify-script"]},
                    ],
                }
            )
            machine.run("systemctl", "daemon-reload")
            machine.run("systemctl", "start", UNIT)
            bearer = f"Bearer {TOKEN}"
            healthy = self.wait_until(lambda: get(port, "/healthz", Authorization=bearer).status == 200)
            self.check("/healthz answers 200 to a client with the token", healthy, self.read_log())
            self.check("... and 401 to others", get(port, "/healthz").status == 401)
            self.check("/metrics is served", "picwish_watchd_jobs" in get(port, "/metrics", Authorization=bearer).body)
            output = machine.run(PROGRAM, "notify", "test", "--to", "1", "-c", CONFIG, check=False)
            self.check("`notify test` reaches the webhook", "sent  1" in output and webhook.accepted_requests(), output)
            machine.write_file(f"{NAS}/in/notes.jpg", "no picture at all" * 50)
            self.wait_until(lambda: self._count_jobs("rejected") == 1)
            began = time.monotonic()
            machine.run("systemctl", "stop", UNIT)
            self.check(
                f"a stop sends the notification and takes {time.monotonic() - began:.1f} s",
                webhook.subjects()[1:] == ["notes.jpg is rejected"],
                webhook.requests,
            )
            output = machine.run_script(f"cat {NAS}/in/.output", check=False)
            self.check("a command runs, as confined as the daemon", output.split() == CONFINED_OUTPUT, output)
            log = self.read_log(lines=10_000)
            self.check("neither secret is in the log", TOKEN not in log and "very-secret" not in log)
        machine.run_script(f"rm {dropin} {NAS}/in/.output {NAS}/in/notes.jpg; systemctl daemon-reload")
        self._configure()

    def check_late_mount(self) -> None:
        """Check a reboot with a NAS that is mounted late: the mount point exists, its mount does not."""
        machine = self._machine
        machine.run_script(
            f"mkdir /kept; mount -t tmpfs nas /kept; cp -a {NAS}/. /kept; chown anna:nas /kept; rm -r {NAS}/*"
        )
        machine.run("systemctl", "start", UNIT)
        time.sleep(3)
        text, facts = self.status_text(), self._unit_properties("ActiveState", "NRestarts")
        good = "away" in text and facts == {"ActiveState": "active", "NRestarts": "0"}
        self.check("without the NAS it starts, waits and says so", good, (text, facts))
        before = self.count_done()
        machine.run("mount", "--bind", "/kept", NAS)
        # This is a different mount, so a user must approve it.
        machine.run(PROGRAM, "approve", "scans", "-c", CONFIG, check=False)
        self.drop_image("late.jpg")
        output = self.wait_until(lambda: self.count_done() >= before + 1, seconds=30)
        self.check("the NAS appears, and the daemon continues", output, (self.status_text(), self.read_log()))
        machine.run("systemctl", "stop", UNIT)

    def check_wrong_configuration(self) -> None:
        self._machine.run("systemctl", "reset-failed", UNIT, check=False)
        self._configure(rules=[{"name": "scans", "inbocks": "x"}])
        self._machine.run("systemctl", "start", UNIT, check=False)
        time.sleep(3)
        facts = self._unit_properties("ExecMainStatus", "NRestarts", "ActiveState")
        good = facts == {"ExecMainStatus": "78", "NRestarts": "0", "ActiveState": "failed"}
        self.check("a wrong configuration ends with 78, without a restart loop", good, facts)
        self._configure()

    def check_crash_loop(self) -> None:
        machine = self._machine
        machine.write_file(
            f"/etc/systemd/system/{UNIT}.service.d/z.conf",
            "[Service]\nExecStart=\nExecStart=/bin/sh -c 'kill -9 $$$$'\n",
        )
        machine.run_script(f"systemctl daemon-reload; systemctl reset-failed {UNIT}")
        machine.run("systemctl", "start", UNIT, check=False)
        good = self.wait_until(lambda: self._unit_properties("ActiveState")["ActiveState"] == "failed", seconds=20)
        self.check(
            "a program that dies at every start is started five times",
            good,
            self._unit_properties("Result", "NRestarts"),
        )
        machine.run_script(
            f"rm /etc/systemd/system/{UNIT}.service.d/z.conf; systemctl daemon-reload; systemctl reset-failed {UNIT}"
        )

    def check_template_instance(self) -> None:
        """Check the shipped template unit."""
        machine = self._machine
        shipped = Path(__file__).parent.parent.parent / "systemd"
        for name in ("picwish-watchd@.service", "picwish-watchd.tmpfiles.conf"):
            machine.write_file(f"/etc/systemd/system/{name}", (shipped / name).read_text())
        machine.run_script("groupadd picwish; usermod -a -G picwish picwish; systemctl daemon-reload")
        rule = {"name": "b", "inbox": f"{NAS}/b/in", "outbox": f"{NAS}/b/out", "settle": "100ms"}
        journal = "/var/lib/picwish-watchd/two/journal.db"
        text = {"api": {"base_url": self._simulator.url, "qps": 100}, "journal": journal, "rules": [rule]}
        machine.write_file("/etc/picwish-watchd/two.yaml", yaml.safe_dump(text))
        machine.write_file("/etc/picwish-watchd/two.key", KEY)
        machine.run("systemd-tmpfiles", "--create", "/etc/systemd/system/picwish-watchd.tmpfiles.conf")
        machine.run_script(f"mkdir -p {NAS}/b/in; chown -R picwish:picwish {NAS}/b")
        machine.run("systemctl", "start", f"{UNIT}@two")
        machine.write_file(f"{NAS}/b/in/two.jpg", make_image(seed=4711))
        good = self.wait_until(lambda: "two.jpg" in machine.run("ls", f"{NAS}/b/out", check=False))
        self.check("an instance of the template serves its own configuration", good, self.read_log(f"{UNIT}@two"))
        machine.run("systemctl", "stop", f"{UNIT}@two")

    def check_uninstall(self) -> None:
        output = self._machine.run(PROGRAM, "service", "uninstall")
        self.check(
            "service uninstall removes the unit", f"removed /etc/systemd/system/{UNIT}.service" in output, output
        )

    def check_charges(self) -> None:
        paid = Counter(charge.sha256 for charge in self._simulator.ledger)
        self.check(f"{len(paid)} contents were paid, none of them twice", max(paid.values()) == 1, paid)

    # Parts of the checks.

    def drop_image(
        self, name: str, *, inbox: str = "in", kind: str = "jpeg", width: int = 96, height: int = 64
    ) -> None:
        """Put a new image into an inbox as the user anna."""
        self._seed += 1
        path = f"{NAS}/{inbox}/{name}"
        self._machine.run(
            "setpriv", "--reuid=anna", "--regid=nas", "--clear-groups", "mkdir", "-p", os.path.dirname(path)
        )
        self._machine.run_script(f"chmod 2775 '{os.path.dirname(path)}'")
        data = make_image(kind, width, height, seed=self._seed)
        assert hashlib.sha256(data)
        self._machine.write_file(path, data, mode="0664", owner="anna:nas")

    def wait_until(self, holds: Callable[[], bool], seconds: float = 30) -> bool:
        """Return whether the condition becomes true within this time."""
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                return False
            time.sleep(0.2)
        return True

    def count_done(self) -> int:
        return self._count_jobs("done")

    def _count_jobs(self, state: str) -> int:
        output = self._machine.run(PROGRAM, "status", "--json", "-c", CONFIG, check=False)
        report = yaml.safe_load(output) if output.startswith("{") else None
        return int(report["jobs"][state]) if report else 0

    def read_log(self, unit: str = UNIT, *, lines: int = 12) -> str:
        return "\n" + self._machine.run("journalctl", "-u", unit, "-n", str(lines), "-o", "cat", "--no-pager")

    def main_pid(self) -> str:
        return self._unit_properties("MainPID")["MainPID"]

    def status_text(self) -> str:
        return self._unit_properties("StatusText")["StatusText"]

    def _unit_properties(self, *names: str) -> dict[str, str]:
        return self._machine.unit_properties(UNIT, *names)

    def _count_creates(self) -> int:
        return sum(request.operation == "create" for request in self._simulator.requests)

    def _has_more_creates(self, number: int) -> bool:
        return self._count_creates() > number

    def _slow_down(self) -> None:
        self._simulator.settings = replace(self._simulator.settings, processing=(2.0, 0.1))

    def _speed_up(self) -> None:
        self._simulator.settings = replace(self._simulator.settings, processing=(0.05, 0.1))

    def _configure(
        self,
        rules: list[dict[str, str]] | None = None,
        more: dict[str, str] | None = None,
        top: dict[str, object] | None = None,
    ) -> None:
        scans = {"name": "scans", "inbox": f"{NAS}/in", "on_success": "move", "archive": f"{NAS}/archive"}
        text = {
            "api": {"base_url": self._simulator.url, "qps": 100, "key_file": "api.key"},
            "journal": "/var/lib/picwish-watchd/journal.db",
            "budget": {"per_day": 500},
            "defaults": {
                "outbox": f"{NAS}/out",
                "settle": "100ms",
                "file_mode": "0664",
                "oversize": "downscale",
                "rescan_interval": "2s",
                "settle_timeout": "1s",
            },
            "rules": rules or [scans, *([more] if more else [])],
            **(top or {}),
        }
        self._machine.write_file(CONFIG, yaml.safe_dump(text))


async def main() -> int:
    """Return 0 if all checks pass, 1 if one fails, 2 where they cannot run."""
    parser = argparse.ArgumentParser(prog="python -m tests.systemd", description=__doc__)
    parser.add_argument(
        "--base", type=Path, default=Path("/var/tmp/picwish-watchd-proof"), help="kept for the next time"
    )
    base: Path = parser.parse_args().base
    missing = [tool for tool in ("debootstrap", "systemd-nspawn", "nsenter") if shutil.which(tool) is None]
    if os.geteuid() != 0 or missing:
        print(" and ".join(["this takes root", *missing]), file=sys.stderr)
        return 2
    machine = Machine(base)
    print(f"a Debian 12 in {base} ...", flush=True)
    await asyncio.to_thread(machine.prepare)
    async with Simulator(Settings(qps=None, key=KEY, processing=(0.05, 0.1))) as simulator:

        def prove() -> int:
            with machine:
                proof = SystemdChecks(machine, simulator)
                proof.run()
                return proof.failures

        failed = await asyncio.to_thread(prove)
    print(f"{failed} checks failed" if failed else "all of it holds")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
