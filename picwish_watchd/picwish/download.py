"""Fetch a result by its URL, from another host and never with the key."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import cast

import httpx

from picwish_watchd.picwish.outcomes import DeadUrl, Downloaded, DownloadOutcome, InvalidResult, NotStored, Unavailable
from picwish_watchd.picwish.response_mapping import parse_retry_after
from picwish_watchd.picwish.sink import Sink, SinkError, TooLargeError
from picwish_watchd.picwish.transport import MAX_PORT

MAX_REDIRECTS = 3

# 4xx codes after which the same URL is worth another try.
_RETRYABLE_CODES = frozenset({408, 425, 429})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Content types of texts, which no result is.
_TEXTS = ("text/", "application/json", "application/xml", "application/xhtml")
# The first bytes of JPEG, PNG, WebP, BMP and TIFF files.
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Bytes that are looked at.
_HEAD = 64
# What a text may begin with: a byte order mark, white space, zeros.
_LEADING_BYTES = b"\xef\xbb\xbf \t\r\n\0"


async def download(
    transport: httpx.AsyncHTTPTransport,
    url: str,
    *,
    sink: Path,
    headers: dict[str, str],
    timeouts: dict[str, float],
    limit: int,
    on_status: Callable[[int], None] = lambda _code: None,
) -> DownloadOutcome:
    """Download ``url`` into ``sink``, a new file. The caller limits the time of the whole download.

    Args:
        transport: sends the requests.
        url: http or https; up to `MAX_REDIRECTS` redirects are followed.
        sink: has the result if and only if the outcome is `Downloaded`.
        headers: sent to every host on the way, so they must contain no secret.
        timeouts: seconds for connect, read, write and pool.
        limit: the largest result that is accepted, in bytes.
        on_status: called with the HTTP code of the last response, before its body is received.

    Raises:
        error_mapping.TRANSPORT_ERRORS: the connection failed.
    """
    target = httpx.URL(url)
    for _ in range(MAX_REDIRECTS + 1):
        if target.scheme not in ("http", "https") or not target.host or (target.port or 1) > MAX_PORT:
            return DeadUrl("the result has a URL that neither http nor https can reach")
        request = httpx.Request("GET", target, headers=headers, extensions={"timeout": timeouts})
        response = await transport.handle_async_request(request)
        async with aclosing(response):
            location = response.headers.get("location")
            if response.status_code not in _REDIRECTS or location is None:
                on_status(response.status_code)
                return await _handle_response(response, sink, limit)
        target = target.join(location)
    return DeadUrl(f"more than {MAX_REDIRECTS} redirects")


async def _handle_response(response: httpx.Response, sink: Path, limit: int) -> DownloadOutcome:
    code = response.status_code
    if 400 <= code < 500 and code not in _RETRYABLE_CODES:
        return DeadUrl(f"the URL of the result is dead (HTTP {code})")
    if code not in (200, 203):
        return Unavailable(f"the result's server answered HTTP {code}", parse_retry_after(response.headers))
    file = Sink(sink, limit)
    is_whole = False
    try:
        outcome = await _store(response, file)
        is_whole = isinstance(outcome, Downloaded)
        return outcome
    except TooLargeError:
        return InvalidResult(f"the result is larger than {limit} bytes, which is more than PicWish makes")
    except SinkError as error:
        return NotStored(f"the result could not be stored: {error}")
    finally:
        file.close(keep=is_whole)


async def _store(response: httpx.Response, file: Sink) -> DownloadOutcome:
    head = b""
    async with aclosing(cast("AsyncGenerator[bytes]", response.aiter_bytes())) as chunks:
        async for chunk in chunks:
            head = (head + chunk[:_HEAD]).lstrip(_LEADING_BYTES)[:_HEAD] if len(head) < _HEAD else head
            await file.write(chunk)
    if file.size == 0:
        return InvalidResult("the result's server sent nothing")
    if _is_text(response.headers.get("content-type", ""), head):
        return InvalidResult("the result's server sent a text instead of an image")
    return Downloaded(await file.finish())


def _is_text(content_type: str, head: bytes) -> bool:
    """Return whether a response is a text. Its type counts only if its first bytes say nothing.

    Some servers give every file the same type.
    """
    if head.startswith(_MAGIC):
        return False
    return head[:1] in (b"<", b"{", b"[", b"") or content_type.strip().lower().startswith(_TEXTS)
