"""A wake-up between steps. It only shortens a wait: whoever waits looks at the journal anyway when patience ends."""

import asyncio


class Wakeup:
    """Rung by whoever has work for a step; must be used in the event loop's thread."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """There may be something to do."""
        self._event.set()

    async def wait(self, patience: float) -> None:
        """Returns when rung, also if that was since the last wait, or after ``patience`` seconds."""
        try:
            async with asyncio.timeout(max(0.0, patience)):
                await self._event.wait()
        except TimeoutError:
            pass
        self._event.clear()
