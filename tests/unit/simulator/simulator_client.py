"""A manual clock, a sample image and an HTTP client for the simulator's tests."""

import asyncio
import io
from collections.abc import Mapping
from typing import Any

import httpx
from PIL import Image

from picwish_watchd.clock import Clock
from picwish_watchd.simulator import Simulator

TASKS_PATH = "/api/tasks/visual/scale-pro"
KEY_HEADERS = {"X-API-KEY": "secret"}


class ManualClock(Clock):
    """A clock that advances only when it is set or slept on."""

    def __init__(self) -> None:
        self.at = 1_800_000_000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at - 1_700_000_000.0

    async def sleep(self, seconds: float) -> None:
        self.at += max(0.0, seconds)
        await asyncio.sleep(0)


def make_quartered_image(kind: str = "JPEG", size: tuple[int, int] = (48, 32), mode: str = "RGB", **save: Any) -> bytes:
    """Return an image with four coloured quarters: red, green, blue and white."""
    image = Image.new("RGB", size, "white")
    half = (size[0] // 2, size[1] // 2)
    image.paste((220, 30, 30), (0, 0, *half))
    image.paste((30, 200, 30), (half[0], 0, size[0], half[1]))
    image.paste((30, 30, 220), (0, half[1], half[0], size[1]))
    buffer = io.BytesIO()
    image.convert(mode).save(buffer, kind, **save)
    return buffer.getvalue()


class SimulatorClient:
    """A client of one simulator."""

    def __init__(self, simulator: Simulator, http: httpx.AsyncClient) -> None:
        self.simulator = simulator
        self.http = http

    async def create(
        self, image: bytes | None = None, *, headers: Mapping[str, str] = KEY_HEADERS, **fields: Any
    ) -> httpx.Response:
        """POST a form: by default with a small JPEG, unless an image_url is given."""
        if image is None and "image_url" not in fields:
            image = make_quartered_image()
        files = None if image is None else {"image_file": ("image.jpg", image, "image/jpeg")}
        return await self.http.post(self.simulator.url + TASKS_PATH, headers=headers, files=files, data=fields)

    async def create_task(self, image: bytes | None = None, **fields: Any) -> str:
        """Create a task and return its id."""
        response = await self.create(image, **fields)
        assert response.status_code == 200, response.text
        task_id = response.json()["data"]["task_id"]
        assert isinstance(task_id, str)
        return task_id

    async def query(self, task_id: str, *, headers: Mapping[str, str] = KEY_HEADERS) -> httpx.Response:
        """GET a task."""
        return await self.http.get(f"{self.simulator.url}{TASKS_PATH}/{task_id}", headers=headers)

    async def query_data(self, task_id: str) -> dict[str, Any]:
        """Return the ``data`` member of a task's response."""
        response = await self.query(task_id)
        assert response.status_code == 200, response.text
        data = response.json()["data"]
        assert isinstance(data, dict)
        return data

    async def create_finished(self, image: bytes | None = None, **fields: Any) -> dict[str, Any]:
        """Create a task, wait for its end and return its ``data``. The simulator needs a `ManualClock`."""
        task_id = await self.create_task(image, **fields)
        await self.simulator.wait_until_rendered()
        await self.simulator.settings.clock.sleep(60)
        return await self.query_data(task_id)
