"""Telling systemd how the daemon is (sd_notify(3)); silent where there is no systemd."""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

# characters of a status
_MAX_STATUS_LENGTH = 1000


class ServiceManager:
    """The socket that ``$NOTIFY_SOCKET`` names, by path or, with a leading "@", in the abstract namespace."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        #: whether there is a service manager
        self.is_available = self._address.startswith(("/", "@"))
        self._last_status = ""
        microseconds = environ.get("WATCHDOG_USEC", "")
        mine = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        #: seconds, or None
        self.watchdog_seconds = int(microseconds) / 1e6 if microseconds.isdigit() and mine else None

    def notify_ready(self) -> None:
        """Every inbox is watched and the journal is recovered."""
        self._send("READY=1")

    def notify_reloading(self) -> None:
        """The configuration is being read again; `ready` ends that."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def notify_stopping(self) -> None:
        """Nothing new is begun any more."""
        self._send("STOPPING=1")

    def send_status(self, text: str) -> None:
        """One line for `systemctl status`; sent only when it has changed."""
        # a line break would begin another of systemd's words, and the text may quote what PicWish or a file said
        line = "".join(c if c.isprintable() else " " for c in text)[:_MAX_STATUS_LENGTH]
        if line != self._last_status:
            self._last_status = line
            self._send(f"STATUS={line}")

    def extend_timeout(self, seconds: float) -> None:
        """The start or stop that is under way may take so long from now on, even beyond the unit's limit."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def ping_watchdog(self) -> None:
        """Feeds the watchdog."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self.is_available:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        # nobody listens, or no descriptor is free: nobody to tell
        with suppress(OSError):
            channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            with channel:
                channel.settimeout(0)
                channel.sendto(message.encode(), address)
