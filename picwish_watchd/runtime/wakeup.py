"""Wake a step of the pipeline early. A missed wake-up costs only time: each step reads the journal periodically."""

import asyncio


class Wakeup:
    """A signal that a step may have work. To be used in the event loop's thread only."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Wake the step: there may be work."""
        self._event.set()

    async def wait(self, max_seconds: float) -> None:
        """Wait for `notify` or ``max_seconds`` seconds. A `notify` since the last wait returns at once."""
        try:
            async with asyncio.timeout(max(0.0, max_seconds)):
                await self._event.wait()
        except TimeoutError:
            pass
        self._event.clear()
