"""Receive every request: record it, apply the scripted faults, and serve it."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

from picwish_watchd.simulator.faults import (
    Action,
    CutResponse,
    Drip,
    FaultScript,
    Hang,
    RefuseConnections,
    Reply,
    Reset,
    Rewrite,
    SendRaw,
    TruncateBody,
)
from picwish_watchd.simulator.http_connection import ConnectionClosed, HttpConnection, HttpResponse, RequestHead
from picwish_watchd.simulator.ledger import Operation, RecordedRequest
from picwish_watchd.simulator.rate_window import RateWindow
from picwish_watchd.simulator.settings import Settings
from picwish_watchd.simulator.tasks import TaskStore

#: Recorded requests; older ones are dropped, so that a simulator can run for weeks.
MAX_RECORDED_REQUESTS = 200_000


def build_envelope(status: int, message: str, data: dict[str, object] | None = None) -> HttpResponse:
    """Build a response of the API: ``{"status", "message", "data"}`` (API document, Return Parameters).

    Errors have no ``data``.
    """
    body: dict[str, object] = {"status": status, "message": message}
    if data is not None:
        body["data"] = data
    return HttpResponse(status, json.dumps(body).encode(), {"Content-Type": "application/json; charset=utf-8"})


class EarlyResponse(Exception):  # noqa: N818 - it is a response, not an error
    """Ends the handling of a request: this response is sent instead."""

    def __init__(self, response: HttpResponse) -> None:
        super().__init__(response.status)
        self.response = response


def build_error(status: int, message: str) -> EarlyResponse:
    """Build an error response of the API, to be raised."""
    return EarlyResponse(build_envelope(status, message))


class RequestDispatcher:
    """What both ports share: settings, faults, recorded requests, tasks and the rate limit."""

    def __init__(self, settings: Settings, refuse: Callable[[], None]) -> None:
        self.settings = settings
        self.script = FaultScript()
        self.requests: list[RecordedRequest] = []
        self.task_store = TaskStore(settings)
        self.rate_window = RateWindow()
        #: Whether every request is answered with 500.
        self.is_broken = False
        self._counts: Counter[Operation] = Counter()
        self._on_refuse = refuse

    def begin_request(self, connection: HttpConnection, head: RequestHead, operation: Operation) -> "RequestHandling":
        """Record a request whose head was read, and return its handling."""
        self._counts[operation] += 1
        headers = {name: "(not kept)" if name == "x-api-key" else value for name, value in head.headers.items()}
        record = RecordedRequest(
            operation, head.method, head.path, head.received_at, "x-api-key" in head.headers, headers
        )
        self.requests.append(record)
        if len(self.requests) > MAX_RECORDED_REQUESTS:
            del self.requests[: MAX_RECORDED_REQUESTS // 10]
        return RequestHandling(self, connection, head, record, self._counts[operation])

    def refuse_connections(self) -> None:
        """Refuse connections on both ports."""
        self._on_refuse()


class RequestHandling:
    """One request on its way through the stages head, body and work (see `simulator.faults`)."""

    def __init__(
        self,
        dispatcher: RequestDispatcher,
        connection: HttpConnection,
        head: RequestHead,
        record: RecordedRequest,
        count: int,
    ) -> None:
        self.dispatcher = dispatcher
        self.connection = connection
        self.head = head
        self.record = record
        self._count = count
        self._action: Action | None = None

    async def serve(self, work: Callable[["RequestHandling"], Awaitable[HttpResponse]]) -> None:
        """Send the response that ``work`` returns, or what the fault script says instead.

        ``work`` must call `apply_body_fault` once. Raises `ConnectionClosed` when the connection is over.
        """
        try:
            if self.dispatcher.is_broken:
                raise build_error(500, "Internal server error")
            await self._apply_fault(self.dispatcher.script.take_head_fault(self.record, self._count))
            response = await self._apply_work_fault(await work(self))
        except EarlyResponse as early:
            response = early.response
        self.record.status = response.status
        await self.connection.send_response(response)
        self.connection.bytes_per_second = None

    async def apply_body_fault(self) -> Action | None:
        """Apply the faults of the stage body; to be called when the body was read and nothing is done yet.

        Return the action that changes the work, if any.
        """
        self._action = self.dispatcher.script.take_body_fault(self.record, self._count)
        if self._action is not None and self._action.at == "body":
            await self._apply_fault(self._action)
        return self._action

    async def _apply_work_fault(self, response: HttpResponse) -> HttpResponse:
        action = self._action
        if action is None or action.at != "work":
            return response
        await self._apply_fault(action)
        if isinstance(action, Drip):
            self.connection.bytes_per_second = action.rate
        elif isinstance(action, CutResponse):
            self.connection.bytes_until_cut = action.after
        elif isinstance(action, TruncateBody):
            return replace(response, body=b"".join(response.chunks)[: action.keep], length=None)
        elif isinstance(action, Rewrite) and response.status == 200 and isinstance(response.body, bytes):
            body = json.loads(response.body)
            return build_envelope(body["status"], body["message"], action.change(body["data"]))
        return response

    async def _apply_fault(self, action: Action | None) -> None:
        if isinstance(action, Reset):
            self.connection.reset()
        if isinstance(action, RefuseConnections):
            self.dispatcher.refuse_connections()
            raise ConnectionClosed
        if isinstance(action, Hang):
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), action.seconds)
            self.connection.reset()
        if isinstance(action, SendRaw):
            await self.connection.send_raw(action.data)
        if isinstance(action, Reply):
            raise EarlyResponse(_build_reply(action))


def _build_reply(action: Reply) -> HttpResponse:
    if action.body is None:
        response = build_envelope(action.status, f"Scripted fault: {action.status}")
        return replace(response, headers={**response.headers, **action.headers})
    return HttpResponse(action.status, action.body, action.headers)
