"""Receive one response of the API."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import httpx

from picwish_watchd.picwish import error_mapping
from picwish_watchd.picwish.response_mapping import ApiResponse, parse_retry_after
from picwish_watchd.picwish.sink import Sink, SinkError, TooLargeError
from picwish_watchd.picwish.streaming_json import MalformedResponseError, StreamingResponseParser


class IncomingResponse:
    """What has arrived of a response so far, so that nothing is lost if it breaks, above all no task_id.

    As a context manager it removes the sink's file at its end, unless the file is finished and `keep_image` was called.
    """

    def __init__(self, sink: Path | None, *, limit: int, secret: str) -> None:
        """Write a base64 image of at most ``limit`` bytes to ``sink``; with None, drop it.

        ``secret`` is removed from the texts.
        """
        self._sink = None if sink is None else Sink(sink, limit)
        self._secret = secret
        self._parser = StreamingResponseParser()
        self._headers: httpx.Headers | None = None
        self._http_status = 0
        self._parse_error = ""
        self._image_defect: str | None = None
        self._store_error: str | None = None
        self._image_wanted = False

    async def receive(
        self,
        response: httpx.Response,
        *,
        to_end: bool,
        on_image_start: Callable[[], None],
    ) -> None:
        """Receive the response up to its end (``to_end``) or to the end of its JSON.

        ``on_image_start`` is called when the first bytes of a base64 image arrive. Raise one of
        `error_mapping.TRANSPORT_ERRORS` if the connection fails.
        """
        self._http_status, self._headers = response.status_code, response.headers
        try:
            async with aclosing(cast("AsyncGenerator[bytes]", response.aiter_bytes())) as chunks:
                async for chunk in chunks:
                    await self._handle_chunk(chunk, on_image_start)
                    if self._parser.is_complete and not to_end:
                        return
        except MalformedResponseError as error:
            self._parse_error = str(error)
        finally:
            await response.aclose()

    async def finish(self, error: Exception | None) -> ApiResponse | None:
        """Return what came, or None if not even a code came. ``error`` is what broke the exchange, if anything."""
        if self._headers is None:
            return None
        envelope = None
        try:
            envelope = self._parser.finish()
        except MalformedResponseError as malformed:
            cause = str(malformed) if error is None else error_mapping.describe_error(error)
            self._parse_error = self._parse_error or cause
        spooled = await self._finish_sink()
        return ApiResponse(
            http_status=self._http_status,
            retry_after=parse_retry_after(self._headers),
            envelope=envelope,
            parse_error=self._parse_error,
            task_id=self._parser.task_id,
            spooled_bytes=spooled,
            image_defect=self._image_defect or self._parser.image_defect,
            store_error=self._store_error,
            secret=self._secret,
        )

    def keep_image(self) -> None:
        """Keep the image in the sink."""
        self._image_wanted = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sink is not None:
            self._sink.close(keep=self._image_wanted)

    async def _handle_chunk(self, chunk: bytes, on_image_start: Callable[[], None]) -> None:
        before = self._parser.has_image_data
        image = self._parser.feed(chunk)
        if self._parser.has_image_data and not before:
            on_image_start()
        if not image or self._sink is None or self._image_defect or self._store_error:
            return
        try:
            await self._sink.write(image)
        except TooLargeError:
            self._image_defect = "the image is larger than any that PicWish makes"
        except SinkError as error:
            self._store_error = f"the result could not be stored: {error}"

    async def _finish_sink(self) -> int | None:
        if not self._parser.is_image_complete or self._sink is None or self._image_defect or self._store_error:
            return None
        try:
            return await self._sink.finish()
        except SinkError as error:
            self._store_error = f"the result could not be stored: {error}"
            return None
