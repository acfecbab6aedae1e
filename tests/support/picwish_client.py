"""A client and sample responses for the tests of the API client."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from picwish_watchd.picwish import CreateOutcome, CreateRequest, PicwishClient, RequestTimeouts

KEY = "wx-secret-key-0123456789"
TASK_ID = "0c3a6e35-6d5b-4b4c-9f6a-3a5c8a5f2b11"
#: Options for tests that wait until the client gives up.
SHORT_TIMEOUTS: dict[str, Any] = {
    "timeout": 0.2,
    "request_timeouts": RequestTimeouts(connect=2.0, create_silence=0.2, sync_create_silence=0.2),
}


def make_client(url: str, **options: Any) -> PicwishClient:
    settings: dict[str, Any] = {"base_url": url, "key": KEY, "timeout": 10.0}
    return PicwishClient(**(settings | options))


def task_envelope(state: object = 1, **more: object) -> dict[str, object]:
    """Return a response envelope with a task."""
    return {"status": 200, "message": "success", "data": {"task_id": TASK_ID, "state": state} | more}


class CreateHooks:
    """Hooks for a create request that record the calls of `started` and `sent`."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.calls: list[str] = []
        self.on_started: Callable[[], None] | None = None
        self.ready: Callable[[], Awaitable[None]] | None = None
        self._error = error

    async def started(self) -> None:
        self.calls.append("started")
        if self.on_started:
            self.on_started()
        if self._error is not None:
            raise self._error

    def sent(self) -> None:
        self.calls.append("sent")


async def create_task(
    picwish: PicwishClient, tmp_path: Path, *, witness: CreateHooks | None = None, size: int = 1000, **request: Any
) -> CreateOutcome:
    witness = witness or CreateHooks()
    create_request = CreateRequest(
        **({"image": bytes(size), "filename": "image.jpg", "content_type": "image/jpeg"} | request)
    )
    return await picwish.create(
        create_request,
        sink=tmp_path / "sink",
        on_send_start=witness.started,
        on_body_sent=witness.sent,
        before_send=witness.ready,
    )
