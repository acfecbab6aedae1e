"""Fetching a result by its address: another host, and never with the key."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import cast

import httpx

from picwish_watchd.picwish.outcomes import DeadUrl, Downloaded, DownloadOutcome, InvalidResult, NotStored, Unavailable
from picwish_watchd.picwish.response_mapping import parse_retry_after
from picwish_watchd.picwish.sink import Sink, SinkError, TooLargeError

MAX_REDIRECTS = 3
MAX_PORT = 65535

#: Definite 4xx after which the same address is worth another try all the same.
_RETRYABLE_CODES = frozenset({408, 425, 429})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TEXTS = ("text/", "application/json", "application/xml", "application/xhtml")
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_HEAD = 64
_LEADING_BYTES = b"\xef\xbb\xbf \t\r\n\0"


async def download(
    transport: httpx.AsyncHTTPTransport,
    url: str,
    *,
    sink: Path,
    headers: dict[str, str],
    timeouts: dict[str, float],
    limit: int,
    answered: Callable[[int], None] = lambda _code: None,
) -> DownloadOutcome:
    """Brings what stands at ``url`` into ``sink``, a fresh file. The caller bounds the time of the whole.

    Args:
        transport: carries the requests.
        url: http or https; up to `MAX_REDIRECTS` redirects are followed.
        sink: holds the result if and only if the outcome is `Downloaded`.
        headers: are sent to whatever host it is.
        timeouts: seconds for connect, read, write and pool.
        limit: the most that is taken, in bytes.
        answered: told the HTTP code of the last answer, before that is taken in.

    Raises:
        faults.CAUGHT: what the transport ended with.
    """
    address = httpx.URL(url)
    for _ in range(MAX_REDIRECTS + 1):
        if address.scheme not in ("http", "https") or not address.host or (address.port or 1) > MAX_PORT:
            return DeadUrl("the address of the result is none that http or https could reach")
        request = httpx.Request("GET", address, headers=headers, extensions={"timeout": timeouts})
        response = await transport.handle_async_request(request)
        async with aclosing(response):
            location = response.headers.get("location")
            if response.status_code not in _REDIRECTS or location is None:
                answered(response.status_code)
                return await _handle_response(response, sink, limit)
        address = address.join(location)
    return DeadUrl(f"more than {MAX_REDIRECTS} redirects")


async def _handle_response(response: httpx.Response, sink: Path, limit: int) -> DownloadOutcome:
    code = response.status_code
    if 400 <= code < 500 and code not in _RETRYABLE_CODES:
        return DeadUrl(f"the result's address is dead (HTTP {code})")
    if code not in (200, 203):
        return Unavailable(f"the result's server answered HTTP {code}", parse_retry_after(response.headers))
    file = Sink(sink, limit)
    kept = False
    try:
        outcome = await _store(response, file)
        kept = isinstance(outcome, Downloaded)
        return outcome
    except TooLargeError:
        return InvalidResult(f"the result is larger than {limit} bytes, which is more than PicWish makes")
    except SinkError as error:
        return NotStored(f"the result could not be stored: {error}")
    finally:
        file.close(keep=kept)


async def _store(response: httpx.Response, file: Sink) -> DownloadOutcome:
    head = b""
    async with aclosing(cast("AsyncGenerator[bytes]", response.aiter_bytes())) as pieces:
        async for piece in pieces:
            head = (head + piece[:_HEAD]).lstrip(_LEADING_BYTES)[:_HEAD] if len(head) < _HEAD else head
            await file.write(piece)
    if file.size == 0:
        return InvalidResult("the result's server sent nothing")
    if _is_text(response.headers.get("content-type", ""), head):
        return InvalidResult("the result's server sent a text instead of a picture")
    return Downloaded(await file.finish())


def _is_text(content_type: str, head: bytes) -> bool:
    """By the first bytes, as some servers call every file the same; by the type only where the bytes say nothing."""
    if head.startswith(_MAGIC):
        return False
    return head[:1] in (b"<", b"{", b"[", b"") or content_type.strip().lower().startswith(_TEXTS)
