"""The port of the results: what an object storage does with signed URLs. No key is needed here, or wanted."""

import hashlib
import hmac
import itertools
import re
import secrets
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from picwish_watchd.simulator.dispatch import EarlyResponse, RequestDispatcher, RequestHandling
from picwish_watchd.simulator.http_connection import LOOPBACK, HttpConnection, HttpResponse, Listener
from picwish_watchd.simulator.tasks import Task

_CHUNK = 256 * 1024
_MIME = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp", "bmp": "image/bmp", "tiff": "image/tiff"}
_PATH = re.compile(r"/results/([^/.]+)\.[a-z]+")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class ResultServer:
    """Hands out results to whoever holds a URL that is signed and not expired."""

    def __init__(self, desk: RequestDispatcher) -> None:
        self._dispatcher = desk
        self._secret = secrets.token_bytes(32)
        self._sequence = itertools.count(1)
        self.listener = Listener(self.serve, lambda: desk.settings.clock)

    @property
    def url(self) -> str:
        """The base URL of this port."""
        return f"http://{LOOPBACK}:{self.listener.port}"

    def sign_url(self, task: Task) -> str:
        """A new URL of the task's picture, valid for ``Settings.url_lifetime`` from now; "" where it has none."""
        if task.picture is None:
            return ""
        path = f"/results/{task.id}.{task.picture.format}"
        expires = f"{self._dispatcher.settings.clock.now() + self._dispatcher.settings.url_lifetime:.3f}"
        number = str(next(self._sequence))
        signature = self._sign(path, expires, number)
        query = {"Expires": expires, "OSSAccessKeyId": "simulator", "n": number, "Signature": signature}
        return f"{self.url}{path}?{urllib.parse.urlencode(query)}"

    async def serve(self, channel: HttpConnection) -> None:
        """Serves one connection until the client closes it."""
        while (head := await channel.read_head()) is not None:
            match = _PATH.fullmatch(head.path)
            visit = self._dispatcher.begin_request(channel, head, "download" if match else "other")
            if match and (task := self._dispatcher.task_store.tasks.get(match[1])):
                visit.record.task_id, visit.record.sha256 = task.id, task.request.sha256
            await visit.serve(self._serve_result)

    async def _serve_result(self, visit: RequestHandling) -> HttpResponse:
        await visit.apply_body_fault()
        if visit.head.method not in ("GET", "HEAD"):
            raise _build_xml_error(405, "MethodNotAllowed", "The specified method is not allowed.")
        self._check_signature(visit)
        task = self._dispatcher.task_store.find_task(visit.record.task_id or "")
        if task is None or task.picture is None:
            raise _build_xml_error(404, "NoSuchKey", "The specified key does not exist.")
        picture = task.picture
        headers = {
            "Content-Type": _MIME[picture.format],
            "ETag": f'"{hashlib.sha256(task.id.encode()).hexdigest()[:32].upper()}"',
            "Accept-Ranges": "bytes",
        }
        span = _parse_range(visit.head.headers.get("range", ""), picture.size)
        if span is None:
            return HttpResponse(200, _iter_file(picture.path, 0, picture.size), headers, picture.size)
        start, end = span
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{picture.size}"
        return HttpResponse(206, _iter_file(picture.path, start, end), headers, end - start)

    def _check_signature(self, visit: RequestHandling) -> None:
        query = dict(urllib.parse.parse_qsl(visit.head.query))
        expires, number = query.get("Expires", ""), query.get("n", "")
        if not hmac.compare_digest(self._sign(visit.head.path, expires, number), query.get("Signature", "")):
            raise _build_xml_error(403, "SignatureDoesNotMatch", "The request signature does not match.")
        if float(expires) <= self._dispatcher.settings.clock.now():
            raise _build_xml_error(403, "AccessDenied", "Request has expired.")

    def _sign(self, path: str, expires: str, number: str) -> str:
        text = f"{path}\n{expires}\n{number}".encode("utf-8", "replace")
        return hmac.new(self._secret, text, "sha256").hexdigest()


def _build_xml_error(status: int, code: str, message: str) -> EarlyResponse:
    """An error as object storages give it: XML, not the API's JSON."""
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return EarlyResponse(HttpResponse(status, body.encode(), {"Content-Type": "application/xml"}))


def _parse_range(header: str, size: int) -> tuple[int, int] | None:
    """First byte and end of a single range (RFC 9110, section 14.1.2); None: all of it. Raises Instead, 416."""
    match = _RANGE.fullmatch(header)
    if match is None or not (match[1] or match[2]):
        return None
    if match[1]:
        start, end = int(match[1]), min(size, int(match[2]) + 1 if match[2] else size)
    else:
        start, end = max(0, size - int(match[2])), size
    if start >= end:
        raise EarlyResponse(HttpResponse(416, b"", {"Content-Range": f"bytes */{size}"}))
    return start, end


def _iter_file(path: Path, start: int, end: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while start < end and (piece := file.read(min(_CHUNK, end - start))):
            start += len(piece)
            yield piece
