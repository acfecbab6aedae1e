"""What asks the daemon for its metrics and its health, by HTTP."""

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
    """A port of loopback on which nobody listens, nor will: below those that the kernel gives, one test run a part."""
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
    """One answer."""

    status: int
    headers: Message
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def samples(self) -> dict[tuple[str, ...], float]:
        """By name and the values of the labels, in the order of the labels' names."""
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(self.body)
            for sample in family.samples
        }


def get(port: int, path: str, *, method: str = "GET", **headers: str) -> HttpReply:
    """Asks at loopback; blocks, for 10 s at most."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return HttpReply(answer.status, answer.headers, answer.read().decode())
    except urllib.error.HTTPError as answer:
        with answer:
            return HttpReply(answer.code, answer.headers, answer.read().decode())
