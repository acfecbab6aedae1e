"""Notifying systemd over real datagram sockets; a failure never stops the daemon."""

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from picwish_watchd.daemon.sd_notify import ServiceManager


@pytest.fixture(params=["path", "abstract"])
def notify_socket(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, str]]:
    """Return a socket like systemd's and its address as systemd writes it."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        address = f"{folder}/notify" if request.param == "path" else f"@picwish-{os.getpid()}"
        channel.bind(address.replace("@", "\0", 1))
        channel.setblocking(False)
        yield channel, address


def received_messages(channel: socket.socket) -> list[str]:
    """Return all messages that have arrived."""
    messages = []
    while True:
        try:
            messages.append(channel.recv(4096).decode())
        except BlockingIOError:
            return messages


def test_each_word_goes_out_as_systemd_reads_it(notify_socket: tuple[socket.socket, str]) -> None:
    channel, address = notify_socket
    manager = ServiceManager({"NOTIFY_SOCKET": address})
    manager.notify_ready()
    manager.ping_watchdog()
    manager.send_status("3 queued")
    manager.notify_stopping()
    assert received_messages(channel) == ["READY=1", "WATCHDOG=1", "STATUS=3 queued", "STOPPING=1"]


def test_reloading_carries_the_monotonic_time(notify_socket: tuple[socket.socket, str]) -> None:
    channel, address = notify_socket
    ServiceManager({"NOTIFY_SOCKET": address}).notify_reloading()
    [message] = received_messages(channel)
    word, _, microseconds = message.partition("\nMONOTONIC_USEC=")
    assert word == "RELOADING=1"
    assert int(microseconds) > 0


def test_a_status_is_sent_only_when_it_has_changed(notify_socket: tuple[socket.socket, str]) -> None:
    channel, address = notify_socket
    manager = ServiceManager({"NOTIFY_SOCKET": address})
    for text in ("idle", "idle", "1 queued", "idle"):
        manager.send_status(text)
    assert received_messages(channel) == ["STATUS=idle", "STATUS=1 queued", "STATUS=idle"]


def test_a_listener_that_reads_nothing_does_not_block_the_daemon(notify_socket: tuple[socket.socket, str]) -> None:
    channel, address = notify_socket
    manager = ServiceManager({"NOTIFY_SOCKET": address})
    for _ in range(1000):
        manager.ping_watchdog()
    assert 0 < len(received_messages(channel)) < 1000


@pytest.mark.parametrize("address", ["", "/nowhere/notify", "@picwish-nobody", "vsock:2:1234", "relative"])
def test_without_a_listener_nothing_happens(address: str) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": address})
    manager.notify_ready()
    manager.send_status("idle")


def test_without_systemd_there_is_no_socket_and_no_watchdog() -> None:
    manager = ServiceManager({})
    manager.notify_ready()
    assert manager.watchdog_seconds is None


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_PID": str(os.getpid())}, None),
    ],
)
def test_the_watchdog_is_fed_only_where_it_waits_for_this_process(
    environ: dict[str, str], seconds: float | None
) -> None:
    assert ServiceManager(environ).watchdog_seconds == seconds


def test_a_path_that_is_no_socket_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "notify"
    file.write_text("mine", "utf-8")
    ServiceManager({"NOTIFY_SOCKET": str(file)}).notify_ready()
    assert file.read_text("utf-8") == "mine"


def test_a_line_break_in_a_status_is_no_other_word(notify_socket: tuple[socket.socket, str]) -> None:
    channel, address = notify_socket
    ServiceManager({"NOTIFY_SOCKET": address}).send_status("PicWish says: no\nMAINPID=1\udcff")
    assert received_messages(channel) == ["STATUS=PicWish says: no MAINPID=1 "]


def test_a_long_start_or_stop_asks_for_its_time(notify_socket: tuple[socket.socket, str]) -> None:
    channel, address = notify_socket
    ServiceManager({"NOTIFY_SOCKET": address}).extend_timeout(45.5)
    assert received_messages(channel) == ["EXTEND_TIMEOUT_USEC=45500000"]
