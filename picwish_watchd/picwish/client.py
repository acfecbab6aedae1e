"""The requests of PicWish's API. Each returns its outcome as a value of `outcomes`."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import httpx

from picwish_watchd.picwish import error_mapping, response_mapping
from picwish_watchd.picwish.download import download
from picwish_watchd.picwish.multipart import CreateRequest, MultipartBody
from picwish_watchd.picwish.outcomes import (
    CreateOutcome,
    DownloadOutcome,
    Finished,
    ProbeOutcome,
    QueryOutcome,
    Succeeded,
)
from picwish_watchd.picwish.response import IncomingResponse
from picwish_watchd.picwish.response_mapping import ApiResponse
from picwish_watchd.picwish.send_hook import SEND_STARTED_EVENT, SendHook, StaleConnectionError, set_deadline
from picwish_watchd.picwish.transport import COMMON_HEADERS, build_transport, validate_base_url, validate_key

API_PATH = "/api/tasks/visual/scale-pro"
#: The id of a task that cannot exist; a probe queries it.
PROBE_TASK_ID = "00000000-0000-0000-0000-000000000000"
#: Bytes. An uncompressed image of 8192 x 8192 pixels with alpha has 268 MB.
MAX_RESULT_SIZE = 500_000_000


@dataclass(frozen=True, slots=True)
class RequestTimeouts:
    """How long requests may take, in seconds. The longest silence of other requests is set by the user."""

    #: The time to connect by TCP, and again for TLS.
    connect: float = 10.0
    #: The shortest silence that is tolerated after a paid POST; to give up earlier only causes doubt.
    create_silence: float = 120.0
    #: The shortest silence that is tolerated after a POST with sync=1; PicWish advises to poll for at most 180 s.
    sync_create_silence: float = 300.0
    #: A whole query, up to where a base64 image begins.
    query: float = 120.0
    #: A whole download, and a base64 image from its beginning.
    transfer: float = 1800.0


class PicwishClient:
    """The requests of one PicWish account.

    It uses httpx's transport directly, because httpx's client handles cookies, redirects, proxies and ``.netrc``.
    The key is sent only to the host of ``base_url`` and appears in no text, no log line and no `repr`.
    """

    def __init__(
        self,
        *,
        base_url: str,
        key: str,
        timeout: float,
        post_deadline: float = 1800.0,
        allow_insecure: bool = False,
        request_timeouts: RequestTimeouts = RequestTimeouts(),
        max_result: int = MAX_RESULT_SIZE,
        on_request_done: Callable[[str, str], None] = lambda _kind, _code: None,
    ) -> None:
        """Open no connection yet.

        Args:
            base_url: https, or http for loopback (with ``allow_insecure`` for any host).
            key: the API key.
            timeout: the longest silence of a connection, in seconds.
            post_deadline: the longest time from the first byte of a POST to the end of its response, in seconds.
            allow_insecure: the key may go over the network without encryption.
            request_timeouts: the other limits of time.
            max_result: the largest result that is accepted, in bytes.
            on_request_done: called after each request with its kind (create, query, probe, download) and the decisive
                code (of HTTP, or PicWish's ``status`` if that is graver), or a word if there was no response.

        Raises ValueError if the address must not receive the key, or the key cannot be a header's value.
        """
        self._base_url = validate_base_url(base_url, allow_insecure=allow_insecure)
        self._key = validate_key(key)
        self._timeout = timeout
        self._post_deadline = post_deadline
        self._request_timeouts = request_timeouts
        self._max_result = max_result
        self._on_request_done = on_request_done
        # A paid POST never reuses a connection: one that the server has closed meanwhile would cause needless doubt.
        self._create_transport = build_transport(max_idle=0)
        self._query_transport = build_transport(max_idle=8)
        self._download_transport = build_transport(max_idle=4)
        # Its debug lines contain headers, and these contain the signatures of URLs.
        logging.getLogger("httpcore").setLevel(logging.WARNING)

    def __repr__(self) -> str:
        return f"<PicwishClient {self._base_url}>"

    def replace_key(self, key: str) -> None:
        """Use ``key`` from the next request on. Raise ValueError if it cannot be a header's value."""
        self._key = validate_key(key)

    async def create(
        self,
        request: CreateRequest,
        *,
        sink: Path,
        on_send_start: Callable[[], Awaitable[None]],
        on_body_sent: Callable[[], None],
        before_send: Callable[[], Awaitable[None]] | None = None,
    ) -> CreateOutcome:
        """Send one paid POST, once, over a connection of its own. The deadline begins after ``on_send_start``.

        Args:
            request: its image is dropped, and released if it is a memoryview, before ``on_body_sent`` is called.
            sink: the file for a base64 result, which it has if and only if the outcome has ``spooled_bytes``.
            on_send_start: awaited once, when the connection (with TLS) is open and before the first byte leaves. An
                error of it is raised here unchanged, and nothing was sent.
            on_body_sent: called at most once, when the whole body was handed over; it must not raise.
            before_send: awaited before ``on_send_start``, without a time limit. A connection that the server has
                closed meanwhile is replaced, once, and this is awaited again.
        """
        body = MultipartBody(request, on_body_sent)
        silence = self._create_silence(request)
        # From here on only the body holds the image.
        del request
        hook = SendHook(before_send, on_send_start, body, self._post_deadline)
        with self._new_response(sink) as incoming:
            try:
                error = await self._post(self._build_post(body, hook, silence), incoming, hook)
            finally:
                body.release_image()
            response = await incoming.finish(error)
            if response is None:
                error = _require_error(error)
                self._on_request_done("create", error_mapping.error_label(error))
                return error_mapping.map_create_error(body.phase, error)
            self._on_request_done("create", response_mapping.create_code_label(response))
            outcome = response_mapping.map_create_response(response, size=body.image_size)
            if isinstance(outcome, Finished) and outcome.spooled_bytes is not None:
                incoming.keep_image()
            return outcome

    async def query(
        self, task_id: str, *, sink: Path, on_send_start: Callable[[], None] = lambda: None
    ) -> QueryOutcome:
        """Query a task, which costs no credits.

        A base64 result goes to ``sink``, which has it if and only if the outcome has ``spooled_bytes``.
        ``on_send_start`` is called when the first byte leaves; a connection may have to be made before that.
        """
        with self._new_response(sink) as incoming:
            response = await self._get(task_id, incoming, "query", on_send_start)
            if isinstance(response, Exception):
                return error_mapping.map_query_error(response)
            outcome = response_mapping.map_query_response(response, task_id)
            if isinstance(outcome, Succeeded) and outcome.spooled_bytes is not None:
                incoming.keep_image()
            return outcome

    async def probe(self, *, on_send_start: Callable[[], None] = lambda: None) -> ProbeOutcome:
        """Query a task that does not exist, to learn at no cost whether the API works and accepts the key.

        ``on_send_start`` is called when the first byte leaves.
        """
        with self._new_response(None) as incoming:
            response = await self._get(PROBE_TASK_ID, incoming, "probe", on_send_start)
            return (
                error_mapping.map_query_error(response)
                if isinstance(response, Exception)
                else response_mapping.map_probe_response(response)
            )

    async def download(self, url: str, *, sink: Path) -> DownloadOutcome:
        """Fetch a result without sending the key; ``sink`` has it if and only if the outcome is `Downloaded`."""
        codes: list[int] = []
        label = None
        try:
            async with asyncio.timeout(self._request_timeouts.transfer):
                return await download(
                    self._download_transport,
                    url,
                    sink=sink,
                    headers=COMMON_HEADERS,
                    timeouts=self._httpcore_timeouts(self._timeout),
                    limit=self._max_result,
                    on_status=codes.append,
                )
        except error_mapping.TRANSPORT_ERRORS as error:
            label = error_mapping.error_label(error)
            return error_mapping.map_download_error(error)
        finally:
            # Without both, the download was cancelled or the URL was unusable: there was no request.
            if codes or label is not None:
                self._on_request_done("download", response_mapping.code_label(codes[-1]) if codes else str(label))

    async def aclose(self) -> None:
        """Close every connection."""
        for transport in (self._create_transport, self._query_transport, self._download_transport):
            await transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _build_post(self, body: MultipartBody, hook: SendHook, silence: float) -> httpx.Request:
        headers = {"Content-Type": body.content_type, "Content-Length": str(body.length), "Connection": "close"}
        return httpx.Request(
            "POST",
            self._base_url + API_PATH,
            headers=self._headers() | headers,
            content=body,
            extensions={"timeout": self._httpcore_timeouts(silence), "trace": hook.trace},
        )

    def _create_silence(self, request: CreateRequest) -> float:
        """Return how long (seconds) the server may be silent after a POST."""
        timeouts = self._request_timeouts
        return max(self._timeout, timeouts.sync_create_silence if request.sync else timeouts.create_silence)

    async def _post(self, request: httpx.Request, incoming: IncomingResponse, hook: SendHook) -> Exception | None:
        """Send a POST; return the error that broke it, or None. Raise what the caller's callbacks raised."""
        try:
            async with asyncio.timeout(None) as hook.deadline:
                try:
                    await self._exchange(self._create_transport, request, incoming, hook.deadline, to_end=False)
                except StaleConnectionError:
                    # It is this image's turn now, so the second connection will not have to wait.
                    await self._exchange(self._create_transport, request, incoming, hook.deadline, to_end=False)
        except error_mapping.TRANSPORT_ERRORS as error:
            if hook.error is not None:
                raise hook.error from None
            return error
        return None

    async def _get(
        self, task_id: str, incoming: IncomingResponse, kind: str, on_send_start: Callable[[], None]
    ) -> ApiResponse | Exception:
        """Query a task; return what came, or the error if nothing came."""

        async def trace(name: str, _info: dict[str, object]) -> None:
            if name == SEND_STARTED_EVENT:
                on_send_start()

        request = httpx.Request(
            "GET",
            f"{self._base_url}{API_PATH}/{_quote_task_id(task_id)}",
            headers=self._headers(),
            extensions={"timeout": self._httpcore_timeouts(self._timeout), "trace": trace},
        )
        error = None
        try:
            async with asyncio.timeout(self._request_timeouts.query) as deadline:
                await self._exchange(self._query_transport, request, incoming, deadline, to_end=True)
        except error_mapping.TRANSPORT_ERRORS as transport_error:
            error = transport_error
        response = await incoming.finish(error)
        if response is None:
            self._on_request_done(kind, error_mapping.error_label(_require_error(error)))
            return _require_error(error)
        self._on_request_done(kind, response_mapping.query_code_label(response))
        return response

    async def _exchange(
        self,
        transport: httpx.AsyncHTTPTransport,
        request: httpx.Request,
        incoming: IncomingResponse,
        deadline: asyncio.Timeout,
        *,
        to_end: bool,
    ) -> None:
        """Send a request and receive its response, up to its end (``to_end``) or to the end of its JSON."""
        response = await transport.handle_async_request(request)
        # The code of an error decides everything, so its text is worth no more than the usual silence.
        if not response.is_success:
            set_deadline(deadline, self._timeout)
        transfer = self._request_timeouts.transfer
        await incoming.receive(response, to_end=to_end, on_image_start=lambda: set_deadline(deadline, transfer))

    def _new_response(self, sink: Path | None) -> IncomingResponse:
        return IncomingResponse(sink, limit=self._max_result, secret=self._key)

    def _headers(self) -> dict[str, str]:
        return COMMON_HEADERS | {"X-API-KEY": self._key}

    def _httpcore_timeouts(self, silence: float) -> dict[str, float]:
        """Return the timeouts of one request in seconds; the write timeout is always the user's."""
        connect = self._request_timeouts.connect
        return {"connect": connect, "pool": connect, "read": silence, "write": self._timeout}


def _require_error(error: Exception | None) -> Exception:
    assert error is not None, "no response and no error"
    return error


def _quote_task_id(task_id: str) -> str:
    """Return a task_id as one segment of a path, whatever its characters (RFC 3986, 3.3 and 5.2.4)."""
    quoted = quote(task_id, safe="")
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")
