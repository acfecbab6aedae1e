"""Report the daemon's state to systemd (sd_notify(3)). Without systemd, nothing is sent."""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

# Characters of a status line.
_MAX_STATUS_LENGTH = 1000


class ServiceManager:
    """The socket in ``$NOTIFY_SOCKET``: a path or, with a leading "@", a name in the abstract namespace."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        #: Whether there is a service manager.
        self.is_available = self._address.startswith(("/", "@"))
        self._last_status = ""
        microseconds = environ.get("WATCHDOG_USEC", "")
        is_ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        #: Seconds within which systemd expects a ping; None if its watchdog is off.
        self.watchdog_seconds = int(microseconds) / 1e6 if microseconds.isdigit() and is_ours else None

    def notify_ready(self) -> None:
        """Report that every inbox is watched and the journal is recovered."""
        self._send("READY=1")

    def notify_reloading(self) -> None:
        """Report that the configuration is being read again. `notify_ready` reports the end of that."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def notify_stopping(self) -> None:
        """Report that the daemon is stopping and starts nothing new."""
        self._send("STOPPING=1")

    def send_status(self, text: str) -> None:
        """Set the line that `systemctl status` shows. It is sent only if it has changed."""
        # The text may quote PicWish or a file name, and a line break would start another assignment for systemd.
        line = "".join(c if c.isprintable() else " " for c in text)[:_MAX_STATUS_LENGTH]
        if line != self._last_status:
            self._last_status = line
            self._send(f"STATUS={line}")

    def extend_timeout(self, seconds: float) -> None:
        """Allow the current start or stop ``seconds`` more from now, even beyond the time limit of the unit."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def ping_watchdog(self) -> None:
        """Send a sign of life to systemd's watchdog."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self.is_available:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        # If nothing listens, or no descriptor is free, the message is lost; the daemon goes on.
        with suppress(OSError):
            channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            with channel:
                channel.settimeout(0)
                channel.sendto(message.encode(), address)
