"""Fetch an ``image_url`` from this machine; the simulator never connects to another one."""

import asyncio
import urllib.parse
from collections.abc import AsyncIterator
from pathlib import Path

import h11

#: Seconds for the whole download (API document, image_url: "10-second download timeout").
FETCH_TIMEOUT = 10.0
_CHUNK = 256 * 1024
_HOSTS = ("127.0.0.1", "localhost")


class FetchError(Exception):
    """The image could not be fetched; ``state`` is PicWish's: -3 not downloaded, -5 image too large."""

    def __init__(self, message: str, state: int = -3) -> None:
        super().__init__(message)
        self.message = message
        self.state = state


async def fetch_image(url: str, target: Path, max_bytes: int) -> None:
    """Download ``url`` to ``target``. Raises `FetchError`; ``target`` is useless then.

    Only http URLs of 127.0.0.1 and localhost are fetched, without following redirects. All others fail at once.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port or 80
    except ValueError as error:
        raise FetchError(f"{url} is not a valid URL") from error
    if parts.scheme != "http" or parts.hostname not in _HOSTS:
        raise FetchError(f"the simulator fetches only http://{_HOSTS[0]} URLs")
    try:
        async with asyncio.timeout(FETCH_TIMEOUT):
            await _download(parts, port, target, max_bytes)
    except TimeoutError as error:
        raise FetchError(f"the download took more than {FETCH_TIMEOUT:g} seconds") from error
    except (OSError, h11.RemoteProtocolError) as error:
        raise FetchError(f"the download failed: {error}") from error


async def _download(parts: urllib.parse.SplitResult, port: int, target: Path, max_bytes: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        http = h11.Connection(h11.CLIENT)
        path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        headers = [("Host", parts.netloc), ("Accept", "image/*"), ("Connection", "close")]
        writer.write(http.send(h11.Request(method="GET", target=path, headers=headers)) or b"")
        http.send(h11.EndOfMessage())
        await _save(_iter_body(http, reader), target, max_bytes)
    finally:
        writer.close()


async def _iter_body(http: h11.Connection, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while not isinstance(event := http.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(_CHUNK))
        elif isinstance(event, h11.Response) and event.status_code != 200:
            raise FetchError(f"the download was answered with status {event.status_code}")
        elif isinstance(event, h11.Data):
            yield bytes(event.data)


async def _save(chunks: AsyncIterator[bytes], target: Path, max_bytes: int) -> None:
    size = 0
    with target.open("wb") as file:
        async for chunk in chunks:
            size += len(chunk)
            if size > max_bytes:
                raise FetchError(f"the image has more than {max_bytes} bytes", state=-5)
            file.write(chunk)
