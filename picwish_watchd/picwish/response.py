"""One answer of the API on its way in."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import httpx

from picwish_watchd.picwish import error_mapping
from picwish_watchd.picwish.response_mapping import Reply, retry_after
from picwish_watchd.picwish.sink import Sink, SinkError, TooLargeError
from picwish_watchd.picwish.streaming_json import AnswerReader, GarbledError


class Arrival:
    """Holds what has arrived so far, so that whatever breaks, nothing of it is lost: above all no task_id.

    As a context manager it removes the sink's file at its end, unless that was finished and `keep` was called.
    """

    def __init__(self, sink: Path | None, *, limit: int, secret: str) -> None:
        """A base64 picture of at most ``limit`` bytes goes to ``sink`` (None: is not wanted).

        ``secret`` is taken out of the texts.
        """
        self._sink = None if sink is None else Sink(sink, limit)
        self._secret = secret
        self._reader = AnswerReader()
        self._headers: httpx.Headers | None = None
        self._code = 0
        self._unreadable = ""
        self._flaw: str | None = None
        self._not_stored: str | None = None
        self._kept = False

    async def take(
        self,
        response: httpx.Response,
        *,
        whole: bool,
        picture_begins: Callable[[], None],
    ) -> None:
        """Takes the answer in, up to its end (``whole``) or just to the end of its JSON. Raises `faults.CAUGHT`.

        ``picture_begins`` is called with the first bytes of a base64 picture.
        """
        self._code, self._headers = response.status_code, response.headers
        try:
            async with aclosing(cast("AsyncGenerator[bytes]", response.aiter_bytes())) as pieces:
                async for piece in pieces:
                    await self._feed(piece, picture_begins)
                    if self._reader.complete and not whole:
                        return
        except GarbledError as error:
            self._unreadable = str(error)
        finally:
            await response.aclose()

    async def settle(self, fault: Exception | None) -> Reply | None:
        """What came, now that nothing more comes (None: not even a code). ``fault`` is what broke the exchange."""
        if self._headers is None:
            return None
        envelope = None
        try:
            envelope = self._reader.finish()
        except GarbledError as error:
            self._unreadable = self._unreadable or (str(error) if fault is None else error_mapping.described(fault))
        spooled = await self._spooled()
        return Reply(
            code=self._code,
            retry_after=retry_after(self._headers),
            envelope=envelope,
            unreadable=self._unreadable,
            task_id=self._reader.task_id,
            spooled=spooled,
            flaw=self._flaw or self._reader.flaw,
            not_stored=self._not_stored,
            secret=self._secret,
        )

    def keep(self) -> None:
        """The picture in the sink is wanted."""
        self._kept = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sink is not None:
            self._sink.close(keep=self._kept)

    async def _feed(self, piece: bytes, picture_begins: Callable[[], None]) -> None:
        before = self._reader.picture_began
        picture = self._reader.feed(piece)
        if self._reader.picture_began and not before:
            picture_begins()
        if not picture or self._sink is None or self._flaw or self._not_stored:
            return
        try:
            await self._sink.write(picture)
        except TooLargeError:
            self._flaw = "the picture is larger than anything that PicWish makes"
        except SinkError as error:
            self._not_stored = f"the result could not be stored: {error}"

    async def _spooled(self) -> int | None:
        if not self._reader.picture_whole or self._sink is None or self._flaw or self._not_stored:
            return None
        try:
            return await self._sink.finish()
        except SinkError as error:
            self._not_stored = f"the result could not be stored: {error}"
            return None
