"""The tasks: what PicWish knows of each image, from the create until it forgets the result."""

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
#: What the states mean (PicWish's status code page).
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
#: Parts of the processing time that a task is queued, and until its preparation ends (our own choice).
_QUEUED_SHARE, _PREPARED_SHARE = 0.05, 0.15
_WORKERS = 2
#: Seconds; what nobody asks for is ended and forgotten so often.
_SETTLE_INTERVAL = 1.0
#: Seconds; shorter sleeps may be lost in the rounding of a clock.
_MIN_SLEEP = 0.001


def default_detail(state: int) -> str:
    """The usual words for a state."""
    return STATE_DETAILS.get(state, "Failed" if state < 0 else "Processing")


@dataclass(frozen=True, slots=True)
class TaskRequest:
    """What a create asks for: an upload or else a URL."""

    #: 0 or 1
    type: int
    #: 0 or 1
    sync: int
    #: 1 or 2
    return_type: int
    upload: UploadedImage | None
    url: str | None
    #: of the upload or the URL
    sha256: str


@dataclass(slots=True)
class Task:
    """One task. ``began`` and ``ended`` are the clock's monotonic seconds, ``created_at`` Unix seconds."""

    id: str
    request: TaskRequest
    created_at: float
    started_at: float
    #: monotonic; infinity for a task that never ends
    due_at: float
    #: final once ``ended`` is set; on the way see ``Workshop.stage``
    state: int = QUEUED
    detail: str = ""
    ended_at: float | None = None
    #: seconds
    download_time: float = 0.0
    #: of a task that succeeded, until it is forgotten
    picture: StoredImage | None = None
    is_forgotten: bool = False

    @property
    def completed_at(self) -> float:
        """Unix seconds; 0 before the end."""
        return 0.0 if self.ended_at is None else self.created_at + self.ended_at - self.started_at


@dataclass(frozen=True, slots=True)
class _RenderResult:
    """What rendering came to; ``at`` is monotonic."""

    rendered_at: float
    picture: StoredImage | None = None
    state: int = SUCCEEDED
    detail: str | None = None
    download_time: float = 0.0


def _remove_folder(folder: Path) -> None:
    """Removes a folder in which a thread may be about to make a file: under another name it cannot."""
    away = folder.with_name(f"{folder.name}.gone")
    folder.rename(away)
    shutil.rmtree(away)


class TaskStore:
    """Makes the pictures and keeps the tasks, the results (in a folder of its own) and the ledger.

    A task ends when its processing time is over and its picture is made. Nothing runs on a timer: a task's state
    follows from the clock whenever somebody looks.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.tasks: dict[str, Task] = {}
        #: stands in for the internet: image_url -> what it holds
        self.remote_images: dict[str, bytes] = {}
        self._ledger: list[LedgerEntry] = []
        self._unfinished: dict[str, tuple[Task, asyncio.Task[_RenderResult]]] = {}
        #: ended, in that order, and not forgotten
        self._kept: deque[Task] = deque()
        self._settled_at = -math.inf
        self._random = random.Random(settings.seed)  # noqa: S311 - processing times are no secret
        self.folder = Path()
        self._threads: ThreadPoolExecutor | None = None

    def open(self) -> None:
        """Makes the folder and the worker threads."""
        self.folder = Path(tempfile.mkdtemp(prefix="picwish-simulator-"))
        self._threads = ThreadPoolExecutor(_WORKERS, thread_name_prefix="picwish-simulator")

    async def close(self) -> None:
        """Gives up what is being made, removes the results and forgets all tasks; the ledger stays.

        A picture under way in a thread is not waited for: it ends with nowhere to be stored.
        """
        self.end_due_tasks()
        rendering = [made for _, made in self._unfinished.values()]
        for made in rendering:
            made.cancel()
        await asyncio.gather(*rendering, return_exceptions=True)
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

    def can_pay(self, type: int) -> bool:
        """Whether the balance covers one more task; unfinished ones count as paid."""
        if self.settings.balance is None:
            return True
        spent = sum(charge.credits for charge in self.ledger)
        reserved = sum(CREDITS_BY_TYPE[task.request.type] for task, _ in self._unfinished.values())
        return spent + reserved + CREDITS_BY_TYPE[type] <= self.settings.balance

    def add_task(self, order: TaskRequest, ending: EndIn | NeverEnd | None = None) -> Task:
        """A new task; the order's upload is the workshop's from now on."""
        clock = self.settings.clock
        began = clock.monotonic()
        if began >= self._settled_at + _SETTLE_INTERVAL:
            self.end_due_tasks()
        due = math.inf if isinstance(ending, NeverEnd) else began + self._draw_processing_time()
        task = Task(str(uuid.uuid4()), order, clock.now(), began, due)
        self.tasks[task.id] = task
        self._unfinished[task.id] = task, asyncio.create_task(self._render(task, ending))
        return task

    def find_task(self, task_id: str) -> Task | None:
        """The task as it stands now; None for one that is unknown or forgotten."""
        task = self.tasks.get(task_id)
        if task is None:
            return None
        self._update_task(task)
        return None if task.is_forgotten else task

    def state_and_progress(self, task: Task) -> tuple[int, int]:
        """State and progress (0-100) at this moment: queued, preparing, processing, then how it ended."""
        if task.ended_at is not None:
            return task.state, 100
        gone = self.settings.clock.monotonic() - task.started_at
        whole = task.due_at - task.started_at
        part = 0.5 if whole == math.inf else gone / whole if whole > 0 else 1.0
        if part < _QUEUED_SHARE:
            return QUEUED, 0
        return PREPARING if part < _PREPARED_SHARE else PROCESSING, min(99, int(100 * part))

    def processed_at(self, task: Task) -> float:
        """When its processing began, Unix seconds; 0 while it is still queued."""
        if self.state_and_progress(task)[0] == QUEUED:
            return 0.0
        whole = task.due_at - task.started_at
        return task.created_at + (0.0 if whole == math.inf else whole * _QUEUED_SHARE)

    def processing_seconds(self, task: Task) -> float:
        """Seconds since its processing began, or that it took."""
        started = self.processed_at(task)
        until = task.completed_at or task.created_at + self.settings.clock.monotonic() - task.started_at
        return max(0.0, until - started) if started else 0.0

    async def wait_until_ended(self, task: Task) -> None:
        """Waits until the task has ended."""
        clock = self.settings.clock
        while task.ended_at is None:
            await asyncio.wait([self._unfinished[task.id][1]])
            if task.due_at == math.inf:
                await asyncio.Event().wait()
            await clock.sleep(max(_MIN_SLEEP, task.due_at - clock.monotonic()))
            self._update_task(task)

    async def wait_until_rendered(self) -> None:
        """Waits until every picture that was ordered is made; with a clock of their own, tests need no more."""
        if self._unfinished:
            await asyncio.wait([made for _, made in self._unfinished.values()])

    def end_due_tasks(self) -> None:
        """Ends every task that is due and forgets what has been kept long enough."""
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
        """Ends the task if its time has come; forgets it if it is old."""
        if self._is_expired(task):
            self._forget_task(task)
        if task.id not in self._unfinished:
            return
        _, made = self._unfinished[task.id]
        if made.done() and task.due_at <= self.settings.clock.monotonic():
            del self._unfinished[task.id]
            self._end_task(task, made.result())

    def _end_task(self, task: Task, made: _RenderResult) -> None:
        task.ended_at = max(task.due_at, made.rendered_at)
        task.state, task.detail = made.state, made.detail or default_detail(made.state)
        task.picture, task.download_time = made.picture, made.download_time
        self._kept.append(task)
        if task.state == SUCCEEDED:
            price, order = CREDITS_BY_TYPE[task.request.type], task.request
            self._ledger.append(LedgerEntry(task.id, price, order.type, order.sha256, task.completed_at))

    def _is_expired(self, task: Task) -> bool:
        now = self.settings.clock.monotonic()
        return task.ended_at is not None and now >= task.ended_at + self.settings.retention

    def _forget_task(self, task: Task) -> None:
        task.is_forgotten = True
        if task.picture is not None:
            task.picture.path.unlink(missing_ok=True)
            task.picture = None

    async def _render(self, task: Task, ending: EndIn | NeverEnd | None) -> _RenderResult:
        order, clock = task.request, self.settings.clock
        source = order.upload.path if order.upload else self.folder / f"{task.id}.source"
        began = downloaded = clock.monotonic()
        picture, state, detail = None, SUCCEEDED, None
        try:
            if order.url is not None:
                await self._fetch_source(order.url, source)
                downloaded = clock.monotonic()
            make = partial(self._make_image, source, self.folder / f"{task.id}.result", order.type)
            picture = await asyncio.get_running_loop().run_in_executor(self._threads, make)
        except (FetchError, EnhanceError) as error:
            state, detail = error.state, error.message
        if picture is None or picture.path != source:
            source.unlink(missing_ok=True)
        if isinstance(ending, EndIn):
            state, detail = ending.state, ending.detail
        return _RenderResult(clock.monotonic(), picture, state, detail, downloaded - began)

    def _make_image(self, source: Path, target: Path, type: int) -> StoredImage:
        settings = self.settings
        if settings.enhance == "echo":
            return read_image_info(source, settings.max_side)
        return enhance_image(source, target, enlarge=settings.enlarge, max_side=settings.max_side, type=type)

    async def _fetch_source(self, url: str, target: Path) -> None:
        if (data := self.remote_images.get(url)) is None:
            await fetch_image(url, target, self.settings.max_bytes)
        elif len(data) > self.settings.max_bytes:
            raise FetchError(f"the image has more than {self.settings.max_bytes} bytes", state=-5)
        else:
            with target.open("wb") as file:
                file.write(data)
