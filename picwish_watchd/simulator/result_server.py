"""The port of the results: what an object storage does with signed URLs. No key is needed here, or wanted."""

import hashlib
import hmac
import itertools
import re
import secrets
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from picwish_watchd.simulator.dispatch import Desk, Instead, Visit
from picwish_watchd.simulator.http_connection import LOOPBACK, Answer, Channel, Listener
from picwish_watchd.simulator.tasks import Task

_CHUNK = 256 * 1024
_MIME = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp", "bmp": "image/bmp", "tiff": "image/tiff"}
_PATH = re.compile(r"/results/([^/.]+)\.[a-z]+")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class Results:
    """Hands out results to whoever holds a URL that is signed and not expired."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._secret = secrets.token_bytes(32)
        self._numbers = itertools.count(1)
        self.listener = Listener(self.serve, lambda: desk.settings.clock)

    @property
    def url(self) -> str:
        """The base URL of this port."""
        return f"http://{LOOPBACK}:{self.listener.port}"

    def url_of(self, task: Task) -> str:
        """A new URL of the task's picture, valid for ``Settings.url_lifetime`` from now; "" where it has none."""
        if task.picture is None:
            return ""
        path = f"/results/{task.id}.{task.picture.format}"
        expires = f"{self._desk.settings.clock.now() + self._desk.settings.url_lifetime:.3f}"
        number = str(next(self._numbers))
        signature = self._sign(path, expires, number)
        query = {"Expires": expires, "OSSAccessKeyId": "simulator", "n": number, "Signature": signature}
        return f"{self.url}{path}?{urllib.parse.urlencode(query)}"

    async def serve(self, channel: Channel) -> None:
        """Serves one connection until the client closes it."""
        while (head := await channel.head()) is not None:
            match = _PATH.fullmatch(head.path)
            visit = self._desk.arrive(channel, head, "download" if match else "other")
            if match and (task := self._desk.workshop.tasks.get(match[1])):
                visit.seen.task_id, visit.seen.sha256 = task.id, task.order.sha256
            await visit.serve(self._download)

    async def _download(self, visit: Visit) -> Answer:
        await visit.body_read()
        if visit.head.method not in ("GET", "HEAD"):
            raise _refusal(405, "MethodNotAllowed", "The specified method is not allowed.")
        self._check_signature(visit)
        task = self._desk.workshop.find(visit.seen.task_id or "")
        if task is None or task.picture is None:
            raise _refusal(404, "NoSuchKey", "The specified key does not exist.")
        picture = task.picture
        headers = {
            "Content-Type": _MIME[picture.format],
            "ETag": f'"{hashlib.sha256(task.id.encode()).hexdigest()[:32].upper()}"',
            "Accept-Ranges": "bytes",
        }
        span = _span(visit.head.headers.get("range", ""), picture.size)
        if span is None:
            return Answer(200, _read(picture.path, 0, picture.size), headers, picture.size)
        start, end = span
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{picture.size}"
        return Answer(206, _read(picture.path, start, end), headers, end - start)

    def _check_signature(self, visit: Visit) -> None:
        query = dict(urllib.parse.parse_qsl(visit.head.query))
        expires, number = query.get("Expires", ""), query.get("n", "")
        if not hmac.compare_digest(self._sign(visit.head.path, expires, number), query.get("Signature", "")):
            raise _refusal(403, "SignatureDoesNotMatch", "The request signature does not match.")
        if float(expires) <= self._desk.settings.clock.now():
            raise _refusal(403, "AccessDenied", "Request has expired.")

    def _sign(self, path: str, expires: str, number: str) -> str:
        text = f"{path}\n{expires}\n{number}".encode("utf-8", "replace")
        return hmac.new(self._secret, text, "sha256").hexdigest()


def _refusal(status: int, code: str, message: str) -> Instead:
    """An error as object storages give it: XML, not the API's JSON."""
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Instead(Answer(status, body.encode(), {"Content-Type": "application/xml"}))


def _span(header: str, size: int) -> tuple[int, int] | None:
    """First byte and end of a single range (RFC 9110, section 14.1.2); None: all of it. Raises Instead, 416."""
    match = _RANGE.fullmatch(header)
    if match is None or not (match[1] or match[2]):
        return None
    if match[1]:
        start, end = int(match[1]), min(size, int(match[2]) + 1 if match[2] else size)
    else:
        start, end = max(0, size - int(match[2])), size
    if start >= end:
        raise Instead(Answer(416, b"", {"Content-Range": f"bytes */{size}"}))
    return start, end


def _read(path: Path, start: int, end: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while start < end and (piece := file.read(min(_CHUNK, end - start))):
            start += len(piece)
            yield piece
