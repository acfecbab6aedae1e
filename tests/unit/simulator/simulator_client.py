"""What the simulator's tests share: a clock turned by hand, pictures, and requests as a client sends them."""

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
    """Stands still unless it is turned; sleeping turns it."""

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
    """Four coloured quarters: red, green, blue, white."""
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

    def __init__(self, sim: Simulator, http: httpx.AsyncClient) -> None:
        self.sim = sim
        self.http = http

    async def create(
        self, image: bytes | None = None, *, headers: Mapping[str, str] = KEY_HEADERS, **fields: Any
    ) -> httpx.Response:
        """POSTs a form; by default a small JPEG, none where an image_url is given."""
        if image is None and "image_url" not in fields:
            image = make_quartered_image()
        files = None if image is None else {"image_file": ("image.jpg", image, "image/jpeg")}
        return await self.http.post(self.sim.url + TASKS_PATH, headers=headers, files=files, data=fields)

    async def create_task(self, image: bytes | None = None, **fields: Any) -> str:
        """The id of a new task."""
        answer = await self.create(image, **fields)
        assert answer.status_code == 200, answer.text
        task_id = answer.json()["data"]["task_id"]
        assert isinstance(task_id, str)
        return task_id

    async def query(self, task_id: str, *, headers: Mapping[str, str] = KEY_HEADERS) -> httpx.Response:
        """GETs a task."""
        return await self.http.get(f"{self.sim.url}{TASKS_PATH}/{task_id}", headers=headers)

    async def query_data(self, task_id: str) -> dict[str, Any]:
        """``data`` of a task."""
        answer = await self.query(task_id)
        assert answer.status_code == 200, answer.text
        data = answer.json()["data"]
        assert isinstance(data, dict)
        return data

    async def create_finished(self, image: bytes | None = None, **fields: Any) -> dict[str, Any]:
        """``data`` of a new task that has ended. The simulator's clock must be a HandClock."""
        task_id = await self.create_task(image, **fields)
        await self.sim.wait_until_rendered()
        await self.sim.settings.clock.sleep(60)
        return await self.query_data(task_id)
