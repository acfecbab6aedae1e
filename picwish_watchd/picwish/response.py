"""One answer of the API on its way in."""

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
    """Holds what has arrived so far, so that whatever breaks, nothing of it is lost: above all no task_id.

    As a context manager it removes the sink's file at its end, unless that was finished and `keep` was called.
    """

    def __init__(self, sink: Path | None, *, limit: int, secret: str) -> None:
        """A base64 picture of at most ``limit`` bytes goes to ``sink`` (None: is not wanted).

        ``secret`` is taken out of the texts.
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
        whole: bool,
        picture_begins: Callable[[], None],
    ) -> None:
        """Takes the answer in, up to its end (``whole``) or just to the end of its JSON. Raises `faults.CAUGHT`.

        ``picture_begins`` is called with the first bytes of a base64 picture.
        """
        self._http_status, self._headers = response.status_code, response.headers
        try:
            async with aclosing(cast("AsyncGenerator[bytes]", response.aiter_bytes())) as pieces:
                async for piece in pieces:
                    await self._handle_chunk(piece, picture_begins)
                    if self._parser.is_complete and not whole:
                        return
        except MalformedResponseError as error:
            self._parse_error = str(error)
        finally:
            await response.aclose()

    async def finish(self, fault: Exception | None) -> ApiResponse | None:
        """What came, now that nothing more comes (None: not even a code). ``fault`` is what broke the exchange."""
        if self._headers is None:
            return None
        envelope = None
        try:
            envelope = self._parser.finish()
        except MalformedResponseError as error:
            self._parse_error = self._parse_error or (
                str(error) if fault is None else error_mapping.describe_error(fault)
            )
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
        """The picture in the sink is wanted."""
        self._image_wanted = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sink is not None:
            self._sink.close(keep=self._image_wanted)

    async def _handle_chunk(self, piece: bytes, picture_begins: Callable[[], None]) -> None:
        before = self._parser.has_image_data
        picture = self._parser.feed(piece)
        if self._parser.has_image_data and not before:
            picture_begins()
        if not picture or self._sink is None or self._image_defect or self._store_error:
            return
        try:
            await self._sink.write(picture)
        except TooLargeError:
            self._image_defect = "the picture is larger than anything that PicWish makes"
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
