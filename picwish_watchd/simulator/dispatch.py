"""Where every request arrives: it is noted, faults befall it, the rest is served."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

from picwish_watchd.simulator.faults import Action, Cut, Drip, Hang, Raw, Refuse, Reply, Reset, Rewrite, Script, Trim
from picwish_watchd.simulator.http_connection import Answer, Channel, Gone, Head
from picwish_watchd.simulator.ledger import Operation, Seen
from picwish_watchd.simulator.rate_window import RateWindow
from picwish_watchd.simulator.settings import Settings
from picwish_watchd.simulator.tasks import Workshop

#: Requests that are remembered; older ones are dropped, so that a simulator can run for weeks.
REMEMBERED = 200_000


def envelope(status: int, message: str, data: dict[str, object] | None = None) -> Answer:
    """The API's answer: ``{"status", "message", "data"}`` (API document, Return Parameters); no data for errors."""
    body: dict[str, object] = {"status": status, "message": message}
    if data is not None:
        body["data"] = data
    return Answer(status, json.dumps(body).encode(), {"Content-Type": "application/json; charset=utf-8"})


class Instead(Exception):  # noqa: N818 - it is an answer, not an error
    """The request gets this answer and is served no further."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def refusal(status: int, message: str) -> Instead:
    """The API's error answer."""
    return Instead(envelope(status, message))


class Desk:
    """What both ports share."""

    def __init__(self, settings: Settings, refuse: Callable[[], None]) -> None:
        self.settings = settings
        self.script = Script()
        self.requests: list[Seen] = []
        self.workshop = Workshop(settings)
        self.window = RateWindow()
        self.broken = False  #: every request is answered 500
        self._counts: Counter[Operation] = Counter()
        self._refuse = refuse

    def arrive(self, channel: Channel, head: Head, operation: Operation) -> "Visit":
        """Notes the request."""
        self._counts[operation] += 1
        headers = {name: "(not kept)" if name == "x-api-key" else value for name, value in head.headers.items()}
        seen = Seen(operation, head.method, head.path, head.at, "x-api-key" in head.headers, headers)
        self.requests.append(seen)
        if len(self.requests) > REMEMBERED:
            del self.requests[: REMEMBERED // 10]
        return Visit(self, channel, head, seen, self._counts[operation])

    def refuse(self) -> None:
        """Refuses connections on both ports."""
        self._refuse()


class Visit:
    """One request on its way through the stages head, body and work."""

    def __init__(self, desk: Desk, channel: Channel, head: Head, seen: Seen, count: int) -> None:
        self.desk = desk
        self.channel = channel
        self.head = head
        self.seen = seen
        self._count = count
        self._action: Action | None = None

    async def serve(self, work: Callable[["Visit"], Awaitable[Answer]]) -> None:
        """Answers with what ``work`` gives, or as the script has it. Raises Gone when the connection is over.

        ``work`` has to call ``body_read`` once.
        """
        try:
            if self.desk.broken:
                raise refusal(500, "Internal server error")
            await self._befall(self.desk.script.at_head(self.seen, self._count))
            answer = await self._finish(await work(self))
        except Instead as instead:
            answer = instead.answer
        self.seen.status = answer.status
        await self.channel.answer(answer)
        self.channel.rate = None

    async def body_read(self) -> Action | None:
        """The body is read, and nothing is done yet. Gives what shapes the work; what ends it happens here."""
        self._action = self.desk.script.after_body(self.seen, self._count)
        if self._action is not None and self._action.at == "body":
            await self._befall(self._action)
        return self._action

    async def _finish(self, answer: Answer) -> Answer:
        action = self._action
        if action is None or action.at != "work":
            return answer
        await self._befall(action)
        if isinstance(action, Drip):
            self.channel.rate = action.rate
        elif isinstance(action, Cut):
            self.channel.cut = action.after
        elif isinstance(action, Trim):
            return replace(answer, body=b"".join(answer.pieces)[: action.keep], length=None)
        elif isinstance(action, Rewrite) and answer.status == 200 and isinstance(answer.body, bytes):
            body = json.loads(answer.body)
            return envelope(body["status"], body["message"], action.change(body["data"]))
        return answer

    async def _befall(self, action: Action | None) -> None:
        if isinstance(action, Reset):
            self.channel.reset()
        if isinstance(action, Refuse):
            self.desk.refuse()
            raise Gone
        if isinstance(action, Hang):
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), action.seconds)
            self.channel.reset()
        if isinstance(action, Raw):
            await self.channel.raw(action.data)
        if isinstance(action, Reply):
            raise Instead(_reply(action))


def _reply(action: Reply) -> Answer:
    if action.body is None:
        answer = envelope(action.status, f"Fault by order: {action.status}")
        return replace(answer, headers={**answer.headers, **action.headers})
    return Answer(action.status, action.body, action.headers)
