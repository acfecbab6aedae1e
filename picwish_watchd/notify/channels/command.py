"""Run a program for a message, without a shell."""

import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress

from picwish_watchd.config.notifiers import Command
from picwish_watchd.notify.message import Message, MessageSent, SendFailed, SendOutcome

#: The only variables of our environment that a program gets, besides LC_*: another one may hold the API key.
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
# Seconds in which a killed process must be gone.
_KILL_TIMEOUT = 5.0

# Kept so that the daemon can kill them when it ends; they would outlive it.
_running_children: set[subprocess.Popen[bytes]] = set()


def run_notify_command(notifier: Command, message: Message) -> SendOutcome:
    """Run the notifier's program and wait for it; its output is not read.

    The payload is on its standard input as JSON. The environment has PICWISH_NOTICE_ID, PICWISH_EVENT, PICWISH_OVER
    and PICWISH_SUBJECT. The program runs in a process group of its own, which is killed after `timeout`.
    """
    program = notifier.run[0]
    try:
        child = subprocess.Popen(  # noqa: S603 - the administrator configured what is run
            notifier.run,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=_build_environment(os.environ, message),
            start_new_session=True,
        )
    except OSError as error:
        reason = f"{program} cannot be run: {error.strerror or error}"
        return SendFailed(reason, is_retryable=not isinstance(error, FileNotFoundError | PermissionError))
    _running_children.add(child)
    try:
        child.communicate(message.to_json() + b"\n", timeout=notifier.timeout)
    except subprocess.TimeoutExpired:
        _kill_group(child)
        return SendFailed(f"{program} did not end within {notifier.timeout:g} s and was killed", is_retryable=True)
    finally:
        _running_children.discard(child)
    code = child.returncode
    if code == 0:
        return MessageSent()
    ending = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return SendFailed(f"{program} {ending}", is_retryable=True)


def kill_running_commands() -> None:
    """Kill the programs that are still running, at the end of the daemon: nothing else would enforce `timeout`."""
    for child in list(_running_children):
        # The process may have just ended.
        with suppress(OSError):
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)


def _build_environment(own: Mapping[str, str], message: Message) -> dict[str, str]:
    allowed = {name: value for name, value in own.items() if name in _ENV_ALLOWLIST or name.startswith("LC_")}
    return {
        **allowed,
        "PICWISH_NOTICE_ID": message.id,
        "PICWISH_EVENT": message.event,
        "PICWISH_OVER": "1" if message.over else "0",
        "PICWISH_SUBJECT": message.subject,
    }


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    # The process may have just ended.
    with suppress(OSError):
        os.killpg(child.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        child.wait(_KILL_TIMEOUT)
    if child.stdin is not None:
        with suppress(OSError):
            child.stdin.close()
