"""A program that is run without a shell."""

import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress

from picwish_watchd.config.notifiers import Command
from picwish_watchd.notify.message import Message, MessageSent, SendFailed, SendOutcome

#: All that is handed on of our own environment: what else stands there may be a key.
_ENV_ALLOWLIST = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)
# seconds in which a killed process must be gone
_KILL_TIMEOUT = 5.0

# who would outlive a daemon that does not wait for them
_running_children: set[subprocess.Popen[bytes]] = set()


def run_notify_command(command: Command, notice: Message) -> SendOutcome:
    """Runs it in a process group of its own, which is killed after `timeout`; what it prints is not read.

    The payload is on its standard input, as JSON; the environment has PICWISH_NOTICE_ID, _EVENT, _OVER and _SUBJECT.
    """
    try:
        child = subprocess.Popen(  # noqa: S603 - what is run is the administrator's word
            command.run,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=_build_environment(os.environ, notice),
            start_new_session=True,
        )
    except OSError as error:
        reason = f"{command.run[0]} cannot be run: {error.strerror or error}"
        return SendFailed(reason, is_retryable=not isinstance(error, FileNotFoundError | PermissionError))
    _running_children.add(child)
    try:
        child.communicate(notice.to_json() + b"\n", timeout=command.timeout)
    except subprocess.TimeoutExpired:
        _kill_group(child)
        return SendFailed(
            f"{command.run[0]} did not end within {command.timeout:g} s, and was killed", is_retryable=True
        )
    finally:
        _running_children.discard(child)
    code = child.returncode
    if code == 0:
        return MessageSent()
    ended = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
    return SendFailed(f"{command.run[0]} {ended}", is_retryable=True)


def kill_running_commands() -> None:
    """Kills those that are under way, at the daemon's end: nobody would be left to do it after `timeout`."""
    for child in list(_running_children):
        # it has just ended by itself
        with suppress(OSError):
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)


def _build_environment(ours: Mapping[str, str], notice: Message) -> dict[str, str]:
    kept = {name: value for name, value in ours.items() if name in _ENV_ALLOWLIST or name.startswith("LC_")}
    return {
        **kept,
        "PICWISH_NOTICE_ID": notice.id,
        "PICWISH_EVENT": notice.event,
        "PICWISH_OVER": "1" if notice.over else "0",
        "PICWISH_SUBJECT": notice.subject,
    }


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    # it has just ended by itself
    with suppress(OSError):
        os.killpg(child.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        child.wait(_KILL_TIMEOUT)
    if child.stdin is not None:
        with suppress(OSError):
            child.stdin.close()
