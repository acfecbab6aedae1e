"""The port of the API: create a task, query a task (API document; error statuses from PicWish's status code page)."""

import base64
import hashlib
import re
import urllib.parse

from picwish_watchd.simulator.dispatch import RequestDispatcher, RequestHandling, build_envelope, build_error
from picwish_watchd.simulator.faults import DuplicateTaskId, EndIn, NeverEnd
from picwish_watchd.simulator.http_connection import LOOPBACK, HttpConnection, HttpResponse, Listener
from picwish_watchd.simulator.ledger import Operation
from picwish_watchd.simulator.multipart import Form, FormError, parse_form
from picwish_watchd.simulator.result_server import ResultServer
from picwish_watchd.simulator.tasks import SUCCEEDED, Task, TaskRequest, default_detail

TASKS_PATH = "/api/tasks/visual/scale-pro"
#: Bytes that a form may have besides the image before it is refused unread (our own limit).
_FORM_OVERHEAD = 64 * 1024
#: Characters (API document, image_url).
_MAX_URL_LENGTH = 512
# RFC 3986, section 2
_URL = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")
_SCHEMES = ("http", "https", "oss")


class ApiServer:
    """Serves creates and queries."""

    def __init__(self, dispatcher: RequestDispatcher, results: ResultServer) -> None:
        self._dispatcher = dispatcher
        self._result_server = results
        self.listener = Listener(self.serve, lambda: dispatcher.settings.clock)

    @property
    def url(self) -> str:
        """The base URL of this port."""
        return f"http://{LOOPBACK}:{self.listener.port}"

    async def serve(self, connection: HttpConnection) -> None:
        """Serve one connection until the client closes it."""
        while (head := await connection.read_head()) is not None:
            operation: Operation = "other"
            if head.method == "POST" and head.path == TASKS_PATH:
                operation = "create"
            elif head.method == "GET" and head.path.startswith(f"{TASKS_PATH}/"):
                operation = "query"
            handling = self._dispatcher.begin_request(connection, head, operation)
            if operation == "create":
                await handling.serve(self._create)
            elif operation == "query":
                self._identify_task(handling)
                await handling.serve(self._query)
            else:
                await handling.serve(_reject_unknown_path)

    async def _create(self, handling: RequestHandling) -> HttpResponse:
        settings = self._dispatcher.settings
        await self._check_admission(handling)
        length = handling.head.headers.get("content-length", "")
        if length.isdigit() and int(length) > settings.max_bytes + _FORM_OVERHEAD:
            raise build_error(413, f"The image has more than {settings.max_bytes} bytes")
        form = await self._read_form(handling)
        task: Task | None = None
        try:
            task = await self._accept_task(handling, form)
        finally:
            if form.upload is not None and (task is None or task.request.upload is not form.upload):
                form.upload.path.unlink(missing_ok=True)
        handling.record.task_id = task.id
        if not task.request.sync:
            return build_envelope(200, "success", {"task_id": task.id})
        await self._dispatcher.task_store.wait_until_ended(task)
        return build_envelope(200, "success", self._render_task(task))

    async def _query(self, handling: RequestHandling) -> HttpResponse:
        await self._check_admission(handling)
        await handling.apply_body_fault()
        task = self._dispatcher.task_store.find_task(handling.record.task_id or "")
        if task is None:
            raise build_error(404, "The task does not exist")
        return build_envelope(200, "success", self._render_task(task))

    async def _check_admission(self, handling: RequestHandling) -> None:
        """Check the key, then the rate, and wait for the latency. Raises `EarlyResponse`: 401, 429."""
        settings = self._dispatcher.settings
        key = handling.head.headers.get("x-api-key", "")
        if not key or settings.key not in (None, key):
            raise build_error(401, "The API key is wrong or the service is not enabled")
        if not self._dispatcher.rate_window.admit(settings.qps, settings.clock.monotonic()):
            raise build_error(429, f"More than {settings.qps:g} requests per second")
        if settings.latency:
            await settings.clock.sleep(settings.latency)

    async def _read_form(self, handling: RequestHandling) -> Form:
        content_type = handling.head.headers.get("content-type", "")
        store = self._dispatcher.task_store
        try:
            form = await parse_form(
                content_type, handling.connection.iter_body(), store.folder, self._dispatcher.settings.max_bytes
            )
        except FormError as error:
            raise build_error(error.status, error.message) from error
        handling.record.fields = form.fields
        if form.upload is not None:
            handling.record.sha256, handling.record.size = form.upload.sha256, form.upload.size
        return form

    async def _accept_task(self, handling: RequestHandling, form: Form) -> Task:
        action = await handling.apply_body_fault()
        store = self._dispatcher.task_store
        request = parse_task_request(form)
        handling.record.sha256 = request.sha256
        if not store.can_pay(request.type):
            raise build_error(401, "The balance does not cover this task")
        if isinstance(action, DuplicateTaskId) and store.tasks:
            return next(reversed(store.tasks.values()))
        return store.add_task(request, action if isinstance(action, EndIn | NeverEnd) else None)

    def _identify_task(self, handling: RequestHandling) -> None:
        task_id = urllib.parse.unquote(handling.head.path.removeprefix(f"{TASKS_PATH}/"))
        handling.record.task_id = task_id
        if (task := self._dispatcher.task_store.tasks.get(task_id)) is not None:
            handling.record.sha256 = task.request.sha256

    def _render_task(self, task: Task) -> dict[str, object]:
        """Return ``data`` of a task: all fields of the API document, empty where the value is not known yet."""
        store = self._dispatcher.task_store
        state, progress = store.state_and_progress(task)
        picture = task.picture
        return {
            "task_id": task.id,
            "created_at": int(task.created_at),
            "processed_at": int(store.processed_at(task)),
            "completed_at": int(task.completed_at),
            "image": self._render_image(task) if state == SUCCEEDED else "",
            "return_type": task.request.return_type,
            "type": task.request.type,
            "progress": progress,
            "state": state,
            "image_width": picture.width if picture else 0,
            "image_height": picture.height if picture else 0,
            "image_size_kb": round(picture.size / 1024, 2) if picture else 0,
            "out_format": picture.format if picture else "",
            "state_detail": task.detail or default_detail(state),
            "download_time": round(task.download_time, 3),
            "time_elapsed": round(store.processing_seconds(task), 3),
        }

    def _render_image(self, task: Task) -> str:
        if task.request.return_type == 1 or task.picture is None:
            return self._result_server.sign_url(task)
        return base64.b64encode(task.picture.path.read_bytes()).decode("ascii")


async def _reject_unknown_path(handling: RequestHandling) -> HttpResponse:
    raise build_error(404, f"There is nothing at {handling.head.method} {handling.head.path}")


def parse_task_request(form: Form) -> TaskRequest:
    """Return what the form requests; ``image_file`` takes precedence over ``image_url``.

    Raises `EarlyResponse` 400, which names the wrong parameter.
    """
    task_type, sync, return_type = (
        _parse_choice(form, name, allowed)
        for name, allowed in (("type", ("0", "1")), ("sync", ("0", "1")), ("return_type", ("1", "2")))
    )
    if form.upload is not None:
        return TaskRequest(task_type, sync, return_type, form.upload, None, form.upload.sha256)
    url = form.fields.get("image_url", "")
    if not url:
        raise build_error(400, "image_file or image_url is required")
    if len(url) > _MAX_URL_LENGTH:
        raise build_error(400, f"image_url has {len(url)} characters; at most {_MAX_URL_LENGTH} are allowed")
    if not _URL.fullmatch(url):
        raise build_error(400, "image_url is not percent-encoded")
    if url.partition("://")[0].lower() not in _SCHEMES:
        raise build_error(400, f"image_url must be one of {', '.join(_SCHEMES)}")
    return TaskRequest(task_type, sync, return_type, None, url, hashlib.sha256(url.encode()).hexdigest())


def _parse_choice(form: Form, name: str, allowed: tuple[str, ...]) -> int:
    """Return a number that must be one of ``allowed``; the first is the default (API document, Body Parameters)."""
    value = form.fields.get(name, allowed[0])
    if value not in allowed:
        raise build_error(400, f"{name} is {value!r}; it must be {' or '.join(allowed)}")
    return int(value)
