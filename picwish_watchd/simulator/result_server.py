"""The port of the results: an object storage with signed URLs. It needs no API key, and must not be sent one."""

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
    """Serves results to clients that have a URL which is signed and not expired."""

    def __init__(self, dispatcher: RequestDispatcher) -> None:
        self._dispatcher = dispatcher
        self._secret = secrets.token_bytes(32)
        self._sequence = itertools.count(1)
        self.listener = Listener(self.serve, lambda: dispatcher.settings.clock)

    @property
    def url(self) -> str:
        """The base URL of this port."""
        return f"http://{LOOPBACK}:{self.listener.port}"

    def sign_url(self, task: Task) -> str:
        """Return a new URL of the task's result, valid for `Settings.url_lifetime` from now; "" if it has none."""
        if task.picture is None:
            return ""
        path = f"/results/{task.id}.{task.picture.format}"
        expires = f"{self._dispatcher.settings.clock.now() + self._dispatcher.settings.url_lifetime:.3f}"
        number = str(next(self._sequence))
        signature = self._sign(path, expires, number)
        query = {"Expires": expires, "OSSAccessKeyId": "simulator", "n": number, "Signature": signature}
        return f"{self.url}{path}?{urllib.parse.urlencode(query)}"

    async def serve(self, connection: HttpConnection) -> None:
        """Serve one connection until the client closes it."""
        while (head := await connection.read_head()) is not None:
            match = _PATH.fullmatch(head.path)
            handling = self._dispatcher.begin_request(connection, head, "download" if match else "other")
            if match and (task := self._dispatcher.task_store.tasks.get(match[1])):
                handling.record.task_id, handling.record.sha256 = task.id, task.request.sha256
            await handling.serve(self._serve_result)

    async def _serve_result(self, handling: RequestHandling) -> HttpResponse:
        await handling.apply_body_fault()
        if handling.head.method not in ("GET", "HEAD"):
            raise _build_xml_error(405, "MethodNotAllowed", "The specified method is not allowed.")
        self._check_signature(handling)
        task = self._dispatcher.task_store.find_task(handling.record.task_id or "")
        if task is None or task.picture is None:
            raise _build_xml_error(404, "NoSuchKey", "The specified key does not exist.")
        picture = task.picture
        headers = {
            "Content-Type": _MIME[picture.format],
            "ETag": f'"{hashlib.sha256(task.id.encode()).hexdigest()[:32].upper()}"',
            "Accept-Ranges": "bytes",
        }
        span = _parse_range(handling.head.headers.get("range", ""), picture.size)
        if span is None:
            return HttpResponse(200, _iter_file(picture.path, 0, picture.size), headers, picture.size)
        start, end = span
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{picture.size}"
        return HttpResponse(206, _iter_file(picture.path, start, end), headers, end - start)

    def _check_signature(self, handling: RequestHandling) -> None:
        query = dict(urllib.parse.parse_qsl(handling.head.query))
        expires, number = query.get("Expires", ""), query.get("n", "")
        if not hmac.compare_digest(self._sign(handling.head.path, expires, number), query.get("Signature", "")):
            raise _build_xml_error(403, "SignatureDoesNotMatch", "The request signature does not match.")
        if float(expires) <= self._dispatcher.settings.clock.now():
            raise _build_xml_error(403, "AccessDenied", "Request has expired.")

    def _sign(self, path: str, expires: str, number: str) -> str:
        text = f"{path}\n{expires}\n{number}".encode("utf-8", "replace")
        return hmac.new(self._secret, text, "sha256").hexdigest()


def _build_xml_error(status: int, code: str, message: str) -> EarlyResponse:
    """Build an error response of an object storage: XML, not the API's JSON."""
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return EarlyResponse(HttpResponse(status, body.encode(), {"Content-Type": "application/xml"}))


def _parse_range(header: str, size: int) -> tuple[int, int] | None:
    """Return first byte and end of a single range (RFC 9110, section 14.1.2); None for the whole result.

    Raises `EarlyResponse` 416 for a range outside of it.
    """
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
        while start < end and (chunk := file.read(min(_CHUNK, end - start))):
            start += len(chunk)
            yield chunk
