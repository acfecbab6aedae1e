"""The API's port: create a task, query a task (API document; error statuses from PicWish's status code page)."""

import base64
import hashlib
import re
import urllib.parse

from picwish_watchd.simulator.dispatch import Desk, Visit, envelope, refusal
from picwish_watchd.simulator.faults import DuplicateTaskId, EndIn, NeverEnd
from picwish_watchd.simulator.http_connection import LOOPBACK, Answer, Channel, Listener
from picwish_watchd.simulator.ledger import Operation
from picwish_watchd.simulator.multipart import Form, FormError, read_form
from picwish_watchd.simulator.result_server import Results
from picwish_watchd.simulator.tasks import SUCCEEDED, Order, Task, detail_of

TASKS = "/api/tasks/visual/scale-pro"
#: What a form may have around the image before it is refused unread (our own bound).
_FORM_OVERHEAD = 64 * 1024
_MAX_URL = 512  #: characters (API document, image_url)
_URL = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")  # RFC 3986, section 2
_SCHEMES = ("http", "https", "oss")


class Api:
    """Takes creates and queries."""

    def __init__(self, desk: Desk, results: Results) -> None:
        self._desk = desk
        self._results = results
        self.listener = Listener(self.serve, lambda: desk.settings.clock)

    @property
    def url(self) -> str:
        """The base URL of this port."""
        return f"http://{LOOPBACK}:{self.listener.port}"

    async def serve(self, channel: Channel) -> None:
        """Serves one connection until the client closes it."""
        while (head := await channel.head()) is not None:
            operation: Operation = "other"
            if head.method == "POST" and head.path == TASKS:
                operation = "create"
            elif head.method == "GET" and head.path.startswith(f"{TASKS}/"):
                operation = "query"
            visit = self._desk.arrive(channel, head, operation)
            if operation == "create":
                await visit.serve(self._create)
            elif operation == "query":
                self._recognise(visit)
                await visit.serve(self._query)
            else:
                await visit.serve(_unknown)

    async def _create(self, visit: Visit) -> Answer:
        settings = self._desk.settings
        await self._admit(visit)
        length = visit.head.headers.get("content-length", "")
        if length.isdigit() and int(length) > settings.max_bytes + _FORM_OVERHEAD:
            raise refusal(413, f"The image has more than {settings.max_bytes} bytes")
        form = await self._read_form(visit)
        task: Task | None = None
        try:
            task = await self._take(visit, form)
        finally:
            if form.upload is not None and (task is None or task.order.upload is not form.upload):
                form.upload.path.unlink(missing_ok=True)
        visit.seen.task_id = task.id
        if not task.order.sync:
            return envelope(200, "success", {"task_id": task.id})
        await self._desk.workshop.finish(task)
        return envelope(200, "success", self._describe(task))

    async def _query(self, visit: Visit) -> Answer:
        await self._admit(visit)
        await visit.body_read()
        task = self._desk.workshop.find(visit.seen.task_id or "")
        if task is None:
            raise refusal(404, "The task does not exist")
        return envelope(200, "success", self._describe(task))

    async def _admit(self, visit: Visit) -> None:
        """Key, then rate. Raises Instead: 401, 429."""
        settings = self._desk.settings
        key = visit.head.headers.get("x-api-key", "")
        if not key or settings.key not in (None, key):
            raise refusal(401, "The API key is wrong or the service is not enabled")
        if not self._desk.window.admit(settings.qps, settings.clock.monotonic()):
            raise refusal(429, f"More than {settings.qps:g} requests per second")
        if settings.latency:
            await settings.clock.sleep(settings.latency)

    async def _read_form(self, visit: Visit) -> Form:
        content_type = visit.head.headers.get("content-type", "")
        workshop = self._desk.workshop
        try:
            form = await read_form(content_type, visit.channel.body(), workshop.folder, self._desk.settings.max_bytes)
        except FormError as error:
            raise refusal(error.status, error.message) from error
        visit.seen.fields = form.fields
        if form.upload is not None:
            visit.seen.sha256, visit.seen.size = form.upload.sha256, form.upload.size
        return form

    async def _take(self, visit: Visit, form: Form) -> Task:
        action = await visit.body_read()
        workshop = self._desk.workshop
        order = read_order(form)
        visit.seen.sha256 = order.sha256
        if not workshop.can_pay(order.type):
            raise refusal(401, "The balance does not cover this task")
        if isinstance(action, DuplicateTaskId) and workshop.tasks:
            return next(reversed(workshop.tasks.values()))
        return workshop.take(order, action if isinstance(action, EndIn | NeverEnd) else None)

    def _recognise(self, visit: Visit) -> None:
        task_id = urllib.parse.unquote(visit.head.path.removeprefix(f"{TASKS}/"))
        visit.seen.task_id = task_id
        if (task := self._desk.workshop.tasks.get(task_id)) is not None:
            visit.seen.sha256 = task.order.sha256

    def _describe(self, task: Task) -> dict[str, object]:
        """``data`` of a task: all fields of the document, with empty values for what is not known yet."""
        workshop = self._desk.workshop
        state, progress = workshop.stage(task)
        picture = task.picture
        return {
            "task_id": task.id,
            "created_at": int(task.created_at),
            "processed_at": int(workshop.processed_at(task)),
            "completed_at": int(task.completed_at),
            "image": self._image(task) if state == SUCCEEDED else "",
            "return_type": task.order.return_type,
            "type": task.order.type,
            "progress": progress,
            "state": state,
            "image_width": picture.width if picture else 0,
            "image_height": picture.height if picture else 0,
            "image_size_kb": round(picture.size / 1024, 2) if picture else 0,
            "out_format": picture.format if picture else "",
            "state_detail": task.detail or detail_of(state),
            "download_time": round(task.download_time, 3),
            "time_elapsed": round(workshop.elapsed(task), 3),
        }

    def _image(self, task: Task) -> str:
        if task.order.return_type == 1 or task.picture is None:
            return self._results.url_of(task)
        return base64.b64encode(task.picture.path.read_bytes()).decode("ascii")


async def _unknown(visit: Visit) -> Answer:
    raise refusal(404, f"There is nothing at {visit.head.method} {visit.head.path}")


def read_order(form: Form) -> Order:
    """What the form asks for; ``image_file`` wins over ``image_url``. Raises Instead, 400, naming the parameter."""
    type, sync, return_type = (
        _choice(form, name, allowed)
        for name, allowed in (("type", ("0", "1")), ("sync", ("0", "1")), ("return_type", ("1", "2")))
    )
    if form.upload is not None:
        return Order(type, sync, return_type, form.upload, None, form.upload.sha256)
    url = form.fields.get("image_url", "")
    if not url:
        raise refusal(400, "image_file or image_url is required")
    if len(url) > _MAX_URL:
        raise refusal(400, f"image_url has {len(url)} characters; at most {_MAX_URL} are allowed")
    if not _URL.fullmatch(url):
        raise refusal(400, "image_url is not percent-encoded")
    if url.partition("://")[0].lower() not in _SCHEMES:
        raise refusal(400, f"image_url must be one of {', '.join(_SCHEMES)}")
    return Order(type, sync, return_type, None, url, hashlib.sha256(url.encode()).hexdigest())


def _choice(form: Form, name: str, allowed: tuple[str, ...]) -> int:
    """A number among the allowed ones; the first is the default (API document, Body Parameters)."""
    value = form.fields.get(name, allowed[0])
    if value not in allowed:
        raise refusal(400, f"{name} is {value!r}; it must be {' or '.join(allowed)}")
    return int(value)
