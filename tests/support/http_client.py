"""An HTTP client for the daemon's metrics and health endpoints."""

import itertools
import json
import os
import socket
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.message import Message
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

_ports = itertools.count()


def free_port() -> int:
    """Return a free loopback port outside the kernel's ephemeral range; each parallel test worker has its own part."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    while True:
        port = 20_000 + worker % 10 * 1_000 + (os.getpid() + next(_ports)) % 1_000
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


@dataclass(frozen=True)
class HttpReply:
    """A response to `get`."""

    status: int
    headers: Message
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def samples(self) -> dict[tuple[str, ...], float]:
        """(name, label values in the order of the label names) -> value of each metric sample."""
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(self.body)
            for sample in family.samples
        }


def get(port: int, path: str, *, method: str = "GET", **headers: str) -> HttpReply:
    """Send a request to a loopback port; block for at most 10 s."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return HttpReply(response.status, response.headers, response.read().decode())
    except urllib.error.HTTPError as response:
        with response:
            return HttpReply(response.code, response.headers, response.read().decode())
