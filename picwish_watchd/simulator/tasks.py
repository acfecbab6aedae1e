"""Keep the tasks: what PicWish knows about each image, from the create until it forgets the result."""

import asyncio
import math
import random
import shutil
import tempfile
import uuid
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from picwish_watchd.simulator.enhance import EnhanceError, StoredImage, enhance_image, read_image_info
from picwish_watchd.simulator.faults import EndIn, NeverEnd
from picwish_watchd.simulator.image_fetch import FetchError, fetch_image
from picwish_watchd.simulator.ledger import LedgerEntry
from picwish_watchd.simulator.multipart import UploadedImage
from picwish_watchd.simulator.settings import Settings

SUCCEEDED, QUEUED, PREPARING, PROCESSING = 1, 0, 2, 4
#: Credits by type (API document, guideline 4).
CREDITS_BY_TYPE: Mapping[int, int] = {0: 5, 1: 4}
#: Texts of the states (PicWish's status code page).
STATE_DETAILS: Mapping[int, str] = {
    -17: "Invalid prompt",
    -16: "Refused by third-party review",
    -15: "Insufficient resources",
    -14: "The content does not meet the requirements",
    -13: "Cancelled by an exception",
    -11: "The result is empty",
    -10: "Refused by review",
    -9: "Internal error",
    -8: "Processing timeout",
    -7: "Invalid image file",
    -5: "Image too large",
    -3: "The source URL could not be downloaded",
    -2: "The result could not be stored",
    -1: "Failed",
    QUEUED: "Queued",
    SUCCEEDED: "Complete",
    PREPARING: "Preparing",
    3: "Waiting",
    PROCESSING: "Processing",
}
#: Shares of the processing time after which a task is no longer queued, and no longer prepared (our own choice).
_QUEUED_SHARE, _PREPARED_SHARE = 0.05, 0.15
_WORKERS = 2
#: Seconds between checks for tasks that no client queries, to end and forget them.
_SETTLE_INTERVAL = 1.0
#: Seconds. Shorter sleeps may be lost in the rounding of a clock.
_MIN_SLEEP = 0.001


def default_detail(state: int) -> str:
    """Return the usual text for a state."""
    return STATE_DETAILS.get(state, "Failed" if state < 0 else "Processing")


@dataclass(frozen=True, slots=True)
class TaskRequest:
    """What a create requests, for an upload or else a URL."""

    #: 0 or 1
    type: int
    #: 0 or 1
    sync: int
    #: 1 or 2
    return_type: int
    upload: UploadedImage | None
    url: str | None
    #: Hexadecimal; of the upload, or of the URL.
    sha256: str


@dataclass(slots=True)
class Task:
    """One task. ``created_at`` is in Unix seconds, ``started_at``, ``due_at`` and ``ended_at`` in monotonic seconds."""

    id: str
    request: TaskRequest
    created_at: float
    started_at: float
    #: Infinity for a task that never ends.
    due_at: float
    #: Valid once ``ended_at`` is set; before that see `TaskStore.state_and_progress`.
    state: int = QUEUED
    detail: str = ""
    ended_at: float | None = None
    #: Seconds.
    download_time: float = 0.0
    #: The result of a successful task, until it is forgotten.
    picture: StoredImage | None = None
    is_forgotten: bool = False

    @property
    def completed_at(self) -> float:
        """When the task ended, in Unix seconds; 0 before that."""
        return 0.0 if self.ended_at is None else self.created_at + self.ended_at - self.started_at


@dataclass(frozen=True, slots=True)
class _RenderResult:
    """The outcome of rendering; ``rendered_at`` is in monotonic seconds."""

    rendered_at: float
    picture: StoredImage | None = None
    state: int = SUCCEEDED
    detail: str | None = None
    download_time: float = 0.0


def _remove_folder(folder: Path) -> None:
    """Remove a folder in which a thread may still create a file. Once renamed, the thread cannot find it."""
    away = folder.with_name(f"{folder.name}.gone")
    folder.rename(away)
    shutil.rmtree(away)


class TaskStore:
    """Renders the results and keeps the tasks, the results (in a folder of its own) and the ledger.

    A task ends when its processing time is over and its result is rendered. There are no timers: the state of a task
    is computed from the clock whenever it is read.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.tasks: dict[str, Task] = {}
        #: A stand-in for the internet: image_url -> the bytes at it.
        self.remote_images: dict[str, bytes] = {}
        self._ledger: list[LedgerEntry] = []
        self._unfinished: dict[str, tuple[Task, asyncio.Task[_RenderResult]]] = {}
        # Tasks that ended and are not forgotten, in the order of their ends.
        self._kept: deque[Task] = deque()
        self._settled_at = -math.inf
        self._random = random.Random(settings.seed)  # noqa: S311 - processing times are not secret
        self.folder = Path()
        self._threads: ThreadPoolExecutor | None = None

    def open(self) -> None:
        """Make the folder and the worker threads."""
        self.folder = Path(tempfile.mkdtemp(prefix="picwish-simulator-"))
        self._threads = ThreadPoolExecutor(_WORKERS, thread_name_prefix="picwish-simulator")

    async def close(self) -> None:
        """Cancel the rendering, remove the results and forget all tasks; the ledger is kept.

        Rendering that runs in a thread is not waited for: it will fail to store its result.
        """
        self.end_due_tasks()
        renderings = [rendering for _, rendering in self._unfinished.values()]
        for rendering in renderings:
            rendering.cancel()
        await asyncio.gather(*renderings, return_exceptions=True)
        self._unfinished.clear()
        for task in self.tasks.values():
            self._forget_task(task)
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None
            _remove_folder(self.folder)

    @property
    def ledger(self) -> list[LedgerEntry]:
        """The charges of all tasks that have succeeded by now."""
        self.end_due_tasks()
        return self._ledger

    def can_pay(self, task_type: int) -> bool:
        """Return whether the balance covers one more task of this type; unfinished tasks count as paid."""
        if self.settings.balance is None:
            return True
        spent = sum(charge.credits for charge in self.ledger)
        reserved = sum(CREDITS_BY_TYPE[task.request.type] for task, _ in self._unfinished.values())
        return spent + reserved + CREDITS_BY_TYPE[task_type] <= self.settings.balance

    def add_task(self, request: TaskRequest, ending: EndIn | NeverEnd | None = None) -> Task:
        """Create a task and start to render its result; the file of the upload belongs to the store from now on."""
        clock = self.settings.clock
        started_at = clock.monotonic()
        if started_at >= self._settled_at + _SETTLE_INTERVAL:
            self.end_due_tasks()
        due = math.inf if isinstance(ending, NeverEnd) else started_at + self._draw_processing_time()
        task = Task(str(uuid.uuid4()), request, clock.now(), started_at, due)
        self.tasks[task.id] = task
        self._unfinished[task.id] = task, asyncio.create_task(self._render(task, ending))
        return task

    def find_task(self, task_id: str) -> Task | None:
        """Return the task in its present state; None if it is unknown or forgotten."""
        task = self.tasks.get(task_id)
        if task is None:
            return None
        self._update_task(task)
        return None if task.is_forgotten else task

    def state_and_progress(self, task: Task) -> tuple[int, int]:
        """Return the present state and progress (0-100): queued, preparing, processing, then the final state."""
        if task.ended_at is not None:
            return task.state, 100
        elapsed = self.settings.clock.monotonic() - task.started_at
        duration = task.due_at - task.started_at
        share = 0.5 if duration == math.inf else elapsed / duration if duration > 0 else 1.0
        if share < _QUEUED_SHARE:
            return QUEUED, 0
        return PREPARING if share < _PREPARED_SHARE else PROCESSING, min(99, int(100 * share))

    def processed_at(self, task: Task) -> float:
        """Return when the processing began, in Unix seconds; 0 while the task is queued."""
        if self.state_and_progress(task)[0] == QUEUED:
            return 0.0
        duration = task.due_at - task.started_at
        return task.created_at + (0.0 if duration == math.inf else duration * _QUEUED_SHARE)

    def processing_seconds(self, task: Task) -> float:
        """Return the seconds since the processing began, or that it took."""
        started = self.processed_at(task)
        until = task.completed_at or task.created_at + self.settings.clock.monotonic() - task.started_at
        return max(0.0, until - started) if started else 0.0

    async def wait_until_ended(self, task: Task) -> None:
        """Wait until the task has ended."""
        clock = self.settings.clock
        while task.ended_at is None:
            await asyncio.wait([self._unfinished[task.id][1]])
            if task.due_at == math.inf:
                await asyncio.Event().wait()
            await clock.sleep(max(_MIN_SLEEP, task.due_at - clock.monotonic()))
            self._update_task(task)

    async def wait_until_rendered(self) -> None:
        """Wait until the results of all tasks are rendered; with a fake clock, tests need no more."""
        if self._unfinished:
            await asyncio.wait([rendering for _, rendering in self._unfinished.values()])

    def end_due_tasks(self) -> None:
        """End all tasks that are due, and forget those whose retention is over."""
        self._settled_at = self.settings.clock.monotonic()
        for task, _ in list(self._unfinished.values()):
            self._update_task(task)
        while self._kept and self._is_expired(self._kept[0]):
            self._forget_task(self._kept.popleft())

    def _draw_processing_time(self) -> float:
        processing = self.settings.processing
        if callable(processing):
            seconds = processing()
        else:
            median, sigma = processing
            seconds = median * math.exp(sigma * self._random.gauss(0.0, 1.0))
        return seconds * self.settings.time_scale

    def _update_task(self, task: Task) -> None:
        """End the task if it is due; forget it if its retention is over."""
        if self._is_expired(task):
            self._forget_task(task)
        if task.id not in self._unfinished:
            return
        _, rendering = self._unfinished[task.id]
        if rendering.done() and task.due_at <= self.settings.clock.monotonic():
            del self._unfinished[task.id]
            self._end_task(task, rendering.result())

    def _end_task(self, task: Task, result: _RenderResult) -> None:
        task.ended_at = max(task.due_at, result.rendered_at)
        task.state, task.detail = result.state, result.detail or default_detail(result.state)
        task.picture, task.download_time = result.picture, result.download_time
        self._kept.append(task)
        if task.state == SUCCEEDED:
            price, request = CREDITS_BY_TYPE[task.request.type], task.request
            self._ledger.append(LedgerEntry(task.id, price, request.type, request.sha256, task.completed_at))

    def _is_expired(self, task: Task) -> bool:
        now = self.settings.clock.monotonic()
        return task.ended_at is not None and now >= task.ended_at + self.settings.retention

    def _forget_task(self, task: Task) -> None:
        task.is_forgotten = True
        if task.picture is not None:
            task.picture.path.unlink(missing_ok=True)
            task.picture = None

    async def _render(self, task: Task, ending: EndIn | NeverEnd | None) -> _RenderResult:
        request, clock = task.request, self.settings.clock
        source = request.upload.path if request.upload else self.folder / f"{task.id}.source"
        started_at = downloaded = clock.monotonic()
        picture, state, detail = None, SUCCEEDED, None
        try:
            if request.url is not None:
                await self._fetch_source(request.url, source)
                downloaded = clock.monotonic()
            make = partial(self._make_image, source, self.folder / f"{task.id}.result", request.type)
            picture = await asyncio.get_running_loop().run_in_executor(self._threads, make)
        except (FetchError, EnhanceError) as error:
            state, detail = error.state, error.message
        if picture is None or picture.path != source:
            source.unlink(missing_ok=True)
        if isinstance(ending, EndIn):
            state, detail = ending.state, ending.detail
        return _RenderResult(clock.monotonic(), picture, state, detail, downloaded - started_at)

    def _make_image(self, source: Path, target: Path, task_type: int) -> StoredImage:
        settings = self.settings
        if settings.enhance == "echo":
            return read_image_info(source, settings.max_side)
        return enhance_image(source, target, enlarge=settings.enlarge, max_side=settings.max_side, task_type=task_type)

    async def _fetch_source(self, url: str, target: Path) -> None:
        if (data := self.remote_images.get(url)) is None:
            await fetch_image(url, target, self.settings.max_bytes)
        elif len(data) > self.settings.max_bytes:
            raise FetchError(f"the image has more than {self.settings.max_bytes} bytes", state=-5)
        else:
            with target.open("wb") as file:
                file.write(data)
