"""The requests that PicWish's API knows, each with one way out: a value that says what it came to."""

import asyncio
import ipaddress
import logging
import select
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from picwish_watchd import __version__
from picwish_watchd.picwish import error_mapping, response_mapping
from picwish_watchd.picwish.download import MAX_PORT, download
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

API_PATH = "/api/tasks/visual/scale-pro"
#: what a probe asks for
PROBE_TASK_ID = "00000000-0000-0000-0000-000000000000"
#: bytes; 8192 x 8192 pixels with alpha, not compressed, are 268 MB
MAX_RESULT_SIZE = 500_000_000

_CONNECTED = "connection.connect_tcp.complete"
_SEND_STARTED_EVENT = "http11.send_request_headers.started"


@dataclass(frozen=True, slots=True)
class RequestTimeouts:
    """How long a request may take, in seconds, beside the longest silence that the user allows."""

    #: for TCP, and again for TLS
    connect: float = 10.0
    #: the least silence allowed after a paid POST: giving up early only makes doubt
    create_silence: float = 120.0
    sync_create_silence: float = (
        #: the same with sync=1; PicWish advises to poll for 180 s at most, so longer than that
        300.0
    )
    #: a query as a whole, until a base64 picture begins
    query: float = 120.0
    #: a download as a whole, and a base64 picture from its beginning
    transfer: float = 1800.0


class PicwishClient:
    """One PicWish account.

    It speaks through httpx's transport and not through its client, which knows cookies, redirects, proxies, ``.netrc``.
    The key goes to the host of ``base_url`` only, and is in no text, no log line and no `repr`.
    """

    def __init__(
        self,
        *,
        base_url: str,
        key: str,
        timeout: float,
        post_deadline: float = 1800.0,
        allow_insecure: bool = False,
        patience: RequestTimeouts = RequestTimeouts(),
        max_result: int = MAX_RESULT_SIZE,
        counted: Callable[[str, str], None] = lambda _kind, _code: None,
    ) -> None:
        """Opens nothing yet.

        Args:
            base_url: https, or http for loopback (with ``allow_insecure`` for any host).
            key: the API key.
            timeout: the longest silence of a connection, in seconds.
            post_deadline: the longest time from the first byte of a POST to the end of its answer, in seconds.
            allow_insecure: the key may go over the network without encryption.
            patience: the other bounds.
            max_result: the largest result that is taken, in bytes.
            counted: told of each request that is over: its kind (create, query, probe, download) and what decided,
                which is a code (of HTTP, or PicWish's ``status`` where that is graver) or, without an answer, a word.

        Raises:
            ValueError: the address is not fit for a key, or the key for a header.
        """
        self._base_url = _validate_base_url(base_url, allow_insecure=allow_insecure)
        self._key = _validate_key(key)
        self._timeout = timeout
        self._post_deadline = post_deadline
        self._request_timeouts = patience
        self._max_result = max_result
        self._on_request_done = counted
        # a paid POST never takes a connection that was used before: a stale one makes doubt for nothing
        self._create_transport = _build_transport(idle=0)
        self._query_transport = _build_transport(idle=8)
        self._download_transport = _build_transport(idle=4)
        # in its debug lines there are headers, and in these the signatures of addresses
        logging.getLogger("httpcore").setLevel(logging.WARNING)

    def __repr__(self) -> str:
        return f"<PicwishClient {self._base_url}>"

    def replace_key(self, key: str) -> None:
        """From the next request on. Raises ValueError if it is not fit for a header."""
        self._key = _validate_key(key)

    async def create(
        self,
        request: CreateRequest,
        *,
        sink: Path,
        started: Callable[[], Awaitable[None]],
        sent: Callable[[], None],
        ready: Callable[[], Awaitable[None]] | None = None,
    ) -> CreateOutcome:
        """Sends one paid POST, once, over a connection of its own.

        The overall deadline begins when ``started`` has returned, so that it never interrupts that.

        Args:
            request: what is asked; at the end of the upload, before ``sent``, the client lets go of the image and
                releases it, if it is a memoryview.
            sink: for a base64 result (sync=1, return_type=2); it holds that only if the outcome has ``spooled``.
            started: awaited once, when the connection (and TLS) stands and before the first byte leaves. What it
                raises comes out of here unchanged, and nothing was sent.
            sent: called at most once, when the whole body was handed over; must not raise.
            ready: awaited before ``started``, as long as the caller likes. A connection that the server has closed
                meanwhile is not used but replaced, once, and this awaited again.
        """
        body = MultipartBody(request, sent)
        silence = max(
            self._timeout,
            self._request_timeouts.sync_create_silence if request.sync else self._request_timeouts.create_silence,
        )
        # the body alone holds the image
        del request
        hook = _SendHook(ready, started, body, self._post_deadline)
        http = httpx.Request(
            "POST",
            self._base_url + API_PATH,
            headers=self._headers()
            | {"Content-Type": body.content_type, "Content-Length": str(body.length), "Connection": "close"},
            content=body,
            extensions={"timeout": self._httpcore_timeouts(silence), "trace": hook.trace},
        )
        with self._new_response(sink) as arrival:
            try:
                fault = await self._post(http, arrival, hook)
            finally:
                body.release_image()
            reply = await arrival.finish(fault)
            if reply is None:
                self._on_request_done("create", error_mapping.error_label(_require_error(fault)))
                return error_mapping.map_create_error(body.phase, _require_error(fault))
            self._on_request_done("create", response_mapping.create_code_label(reply))
            outcome = response_mapping.map_create_response(reply, size=body.image_size)
            if isinstance(outcome, Finished) and outcome.spooled_bytes is not None:
                arrival.keep_image()
            return outcome

    async def query(self, task_id: str, *, sink: Path, leaving: Callable[[], None] = lambda: None) -> QueryOutcome:
        """Asks for a task, which costs nothing.

        A base64 result goes to ``sink``, which holds it only if the outcome has ``spooled``. ``leaving`` is called when
        the first byte leaves, which may be later than it was asked for: a connection may have to be made first.
        """
        with self._new_response(sink) as arrival:
            reply = await self._get(task_id, arrival, "query", leaving)
            if isinstance(reply, Exception):
                return error_mapping.map_query_error(reply)
            outcome = response_mapping.map_query_response(reply, task_id)
            if isinstance(outcome, Succeeded) and outcome.spooled_bytes is not None:
                arrival.keep_image()
            return outcome

    async def probe(self, *, leaving: Callable[[], None] = lambda: None) -> ProbeOutcome:
        """Asks for a task that does not exist: tells for nothing whether API and key are well; ``leaving`` as above."""
        with self._new_response(None) as arrival:
            reply = await self._get(PROBE_TASK_ID, arrival, "probe", leaving)
            return (
                error_mapping.map_query_error(reply)
                if isinstance(reply, Exception)
                else response_mapping.map_probe_response(reply)
            )

    async def download(self, url: str, *, sink: Path) -> DownloadOutcome:
        """Fetches a result, without the key, into ``sink``, which holds it only if the outcome is `Downloaded`."""
        codes: list[int] = []
        word = None
        try:
            async with asyncio.timeout(self._request_timeouts.transfer):
                return await download(
                    self._download_transport,
                    url,
                    sink=sink,
                    headers=_COMMON_HEADERS,
                    timeouts=self._httpcore_timeouts(self._timeout),
                    limit=self._max_result,
                    answered=codes.append,
                )
        except error_mapping.TRANSPORT_ERRORS as error:
            word = error_mapping.error_label(error)
            return error_mapping.map_download_error(error)
        finally:
            # neither: it was cancelled, or no address to ask
            if codes or word is not None:
                self._on_request_done("download", response_mapping.code_label(codes[-1]) if codes else str(word))

    async def aclose(self) -> None:
        """Closes every connection."""
        for transport in (self._create_transport, self._query_transport, self._download_transport):
            await transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _post(self, http: httpx.Request, arrival: IncomingResponse, hook: "_SendHook") -> Exception | None:
        """Answers what broke the exchange; raises what the caller's hooks raised."""
        try:
            async with asyncio.timeout(None) as hook.deadline:
                try:
                    await self._exchange(self._create_transport, http, arrival, hook.deadline, whole=False)
                except _StaleConnectionError:
                    # now that it is its turn, another one will not have to wait
                    await self._exchange(self._create_transport, http, arrival, hook.deadline, whole=False)
        except error_mapping.TRANSPORT_ERRORS as error:
            if hook.error is not None:
                raise hook.error from None
            return error
        return None

    async def _get(
        self, task_id: str, arrival: IncomingResponse, kind: str, leaving: Callable[[], None]
    ) -> ApiResponse | Exception:
        async def trace(name: str, _info: dict[str, object]) -> None:
            if name == _SEND_STARTED_EVENT:
                leaving()

        request = httpx.Request(
            "GET",
            f"{self._base_url}{API_PATH}/{_quote_task_id(task_id)}",
            headers=self._headers(),
            extensions={"timeout": self._httpcore_timeouts(self._timeout), "trace": trace},
        )
        fault = None
        try:
            async with asyncio.timeout(self._request_timeouts.query) as deadline:
                await self._exchange(self._query_transport, request, arrival, deadline, whole=True)
        except error_mapping.TRANSPORT_ERRORS as error:
            fault = error
        reply = await arrival.finish(fault)
        self._on_request_done(
            kind,
            error_mapping.error_label(_require_error(fault))
            if reply is None
            else response_mapping.query_code_label(reply),
        )
        return _require_error(fault) if reply is None else reply

    async def _exchange(
        self,
        transport: httpx.AsyncHTTPTransport,
        request: httpx.Request,
        arrival: IncomingResponse,
        deadline: asyncio.Timeout,
        *,
        whole: bool,
    ) -> None:
        response = await transport.handle_async_request(request)
        # the code says it all; its text is not worth much time
        if not response.is_success:
            _set_deadline(deadline, self._timeout)
        await arrival.receive(
            response, whole=whole, picture_begins=lambda: _set_deadline(deadline, self._request_timeouts.transfer)
        )

    def _new_response(self, sink: Path | None) -> IncomingResponse:
        return IncomingResponse(sink, limit=self._max_result, secret=self._key)

    def _headers(self) -> dict[str, str]:
        return _COMMON_HEADERS | {"X-API-KEY": self._key}

    def _httpcore_timeouts(self, silence: float) -> dict[str, float]:
        """For httpcore: seconds; the write timeout is always the user's."""
        connect = self._request_timeouts.connect
        return {"connect": connect, "pool": connect, "read": silence, "write": self._timeout}


_COMMON_HEADERS = {
    "User-Agent": f"picwish-watchd/{__version__}",
    "Accept": "*/*",
    # answers are short or pictures; compression only adds what can break
    "Accept-Encoding": "identity",
}


class _StaleConnectionError(httpx.ConnectError):
    """The server has closed a connection before anything was sent."""


class _SendHook:
    """Stands between the connection and the first byte of a POST (httpcore's trace extension)."""

    def __init__(
        self,
        ready: Callable[[], Awaitable[None]] | None,
        started: Callable[[], Awaitable[None]],
        body: MultipartBody,
        allowed: float,
    ) -> None:
        """From the first byte on ``allowed`` seconds remain of ``deadline``."""
        #: what ``ready`` or ``started`` raised
        self.error: BaseException | None = None
        self.deadline: asyncio.Timeout | None = None
        self._ready = ready
        self._started = started
        self._connection: socket.socket | None = None
        self._body = body
        self._send_seconds = allowed

    async def trace(self, name: str, info: dict[str, Any]) -> None:
        if name == _CONNECTED:
            self._connection = info["return_value"].get_extra_info("socket")
        if name != _SEND_STARTED_EVENT:
            return
        if self._ready is not None:
            await self._call_hook(self._ready)
            if self._connection is not None and _is_closed(self._connection):
                raise _StaleConnectionError("the server closed it again before anything was sent")
        await self._call_hook(self._started)
        self._body.allow_sending()
        assert self.deadline is not None
        _set_deadline(self.deadline, self._send_seconds)

    async def _call_hook(self, who: Callable[[], Awaitable[None]]) -> None:
        try:
            await who()
        except BaseException as error:
            self.error = error
            raise


def _is_closed(connection: socket.socket) -> bool:
    """Whether the other side will send nothing more. What it has sent does not matter: TLS sends tickets at once."""
    look = select.poll()
    look.register(connection, select.POLLRDHUP)
    return bool(look.poll(0))


def _set_deadline(deadline: asyncio.Timeout, seconds: float) -> None:
    """From now on; one that has passed stays passed."""
    if not deadline.expired():
        deadline.reschedule(asyncio.get_running_loop().time() + seconds)


def _require_error(fault: Exception | None) -> Exception:
    assert fault is not None, "no answer and no error"
    return fault


def _quote_task_id(task_id: str) -> str:
    """One step of a path, whatever a server called its task (RFC 3986, 3.3 and 5.2.4)."""
    quoted = quote(task_id, safe="")
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")


def _validate_key(key: str) -> str:
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("the API key must be one word of printable ASCII characters")
    return key


def _validate_base_url(base_url: str, *, allow_insecure: bool) -> str:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{base_url!r} is not an address") from error
    if url.scheme not in ("http", "https") or not url.host or (url.port or 1) > MAX_PORT:
        raise ValueError(f"{base_url!r} is not an http or https address")
    if url.scheme == "http" and not allow_insecure and not _is_loopback(url.host):
        raise ValueError(f"{base_url!r} would send the key without encryption")
    return str(url).rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@cache
def _create_tls_context() -> ssl.SSLContext:
    """Made once, as it takes about 0.1 s; the environment is not asked for certificates."""
    return httpx.create_ssl_context(trust_env=False)


def _build_transport(*, idle: int) -> httpx.AsyncHTTPTransport:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=idle, keepalive_expiry=5.0)
    return httpx.AsyncHTTPTransport(
        verify=_create_tls_context(), trust_env=False, http1=True, http2=False, limits=limits, retries=0
    )
