"""Where every request arrives: it is noted, faults befall it, the rest is served."""

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

#: Requests that are remembered; older ones are dropped, so that a simulator can run for weeks.
MAX_RECORDED_REQUESTS = 200_000


def build_envelope(status: int, message: str, data: dict[str, object] | None = None) -> HttpResponse:
    """The API's answer: ``{"status", "message", "data"}`` (API document, Return Parameters); no data for errors."""
    body: dict[str, object] = {"status": status, "message": message}
    if data is not None:
        body["data"] = data
    return HttpResponse(status, json.dumps(body).encode(), {"Content-Type": "application/json; charset=utf-8"})


class EarlyResponse(Exception):  # noqa: N818 - it is an answer, not an error
    """The request gets this answer and is served no further."""

    def __init__(self, answer: HttpResponse) -> None:
        super().__init__(answer.status)
        self.response = answer


def build_error(status: int, message: str) -> EarlyResponse:
    """The API's error answer."""
    return EarlyResponse(build_envelope(status, message))


class RequestDispatcher:
    """What both ports share."""

    def __init__(self, settings: Settings, refuse: Callable[[], None]) -> None:
        self.settings = settings
        self.script = FaultScript()
        self.requests: list[RecordedRequest] = []
        self.task_store = TaskStore(settings)
        self.rate_window = RateWindow()
        #: every request is answered 500
        self.is_broken = False
        self._counts: Counter[Operation] = Counter()
        self._on_refuse = refuse

    def begin_request(self, channel: HttpConnection, head: RequestHead, operation: Operation) -> "RequestHandling":
        """Notes the request."""
        self._counts[operation] += 1
        headers = {name: "(not kept)" if name == "x-api-key" else value for name, value in head.headers.items()}
        seen = RecordedRequest(
            operation, head.method, head.path, head.received_at, "x-api-key" in head.headers, headers
        )
        self.requests.append(seen)
        if len(self.requests) > MAX_RECORDED_REQUESTS:
            del self.requests[: MAX_RECORDED_REQUESTS // 10]
        return RequestHandling(self, channel, head, seen, self._counts[operation])

    def refuse_connections(self) -> None:
        """Refuses connections on both ports."""
        self._on_refuse()


class RequestHandling:
    """One request on its way through the stages head, body and work."""

    def __init__(
        self, desk: RequestDispatcher, channel: HttpConnection, head: RequestHead, seen: RecordedRequest, count: int
    ) -> None:
        self.dispatcher = desk
        self.connection = channel
        self.head = head
        self.record = seen
        self._count = count
        self._action: Action | None = None

    async def serve(self, work: Callable[["RequestHandling"], Awaitable[HttpResponse]]) -> None:
        """Answers with what ``work`` gives, or as the script has it. Raises Gone when the connection is over.

        ``work`` has to call ``body_read`` once.
        """
        try:
            if self.dispatcher.is_broken:
                raise build_error(500, "Internal server error")
            await self._apply_fault(self.dispatcher.script.take_head_fault(self.record, self._count))
            answer = await self._apply_work_fault(await work(self))
        except EarlyResponse as instead:
            answer = instead.response
        self.record.status = answer.status
        await self.connection.send_response(answer)
        self.connection.bytes_per_second = None

    async def apply_body_fault(self) -> Action | None:
        """The body is read, and nothing is done yet. Gives what shapes the work; what ends it happens here."""
        self._action = self.dispatcher.script.take_body_fault(self.record, self._count)
        if self._action is not None and self._action.at == "body":
            await self._apply_fault(self._action)
        return self._action

    async def _apply_work_fault(self, answer: HttpResponse) -> HttpResponse:
        action = self._action
        if action is None or action.at != "work":
            return answer
        await self._apply_fault(action)
        if isinstance(action, Drip):
            self.connection.bytes_per_second = action.rate
        elif isinstance(action, CutResponse):
            self.connection.bytes_until_cut = action.after
        elif isinstance(action, TruncateBody):
            return replace(answer, body=b"".join(answer.chunks)[: action.keep], length=None)
        elif isinstance(action, Rewrite) and answer.status == 200 and isinstance(answer.body, bytes):
            body = json.loads(answer.body)
            return build_envelope(body["status"], body["message"], action.change(body["data"]))
        return answer

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
        answer = build_envelope(action.status, f"Fault by order: {action.status}")
        return replace(answer, headers={**answer.headers, **action.headers})
    return HttpResponse(action.status, action.body, action.headers)
