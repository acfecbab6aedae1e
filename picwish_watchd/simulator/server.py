"""The simulator as a whole: two loopback ports, and what tests may look at and turn."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from picwish_watchd.simulator.api import Api
from picwish_watchd.simulator.dispatch import Desk
from picwish_watchd.simulator.faults import Script
from picwish_watchd.simulator.ledger import Charge, Seen
from picwish_watchd.simulator.result_server import Results
from picwish_watchd.simulator.settings import Settings
from picwish_watchd.simulator.tasks import Task


class Simulator:
    """A stand-in for PicWish on 127.0.0.1, and on no other address.

    ``async with Simulator(Settings(...)) as sim`` starts and stops it. What it has seen and charged can be read after
    it has stopped, too.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._desk = Desk(settings or Settings(), self._refuse)
        self._results = Results(self._desk)
        self._api = Api(self._desk, self._results)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self, port: int = 0) -> None:
        """Opens both ports; ``port`` is the API's, 0 any free one. Raises OSError where it is taken."""
        self._desk.workshop.open()
        try:
            await self._api.listener.open(port)
            await self._results.listener.open()
        except OSError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Breaks every connection, closes the ports and forgets all tasks; takes well under a second.

        After another ``start`` the ports are the same, and the old tasks are unknown (404).
        """
        await self._api.listener.close()
        await self._results.listener.close()
        await self._desk.workshop.close()

    async def rendered(self) -> None:
        """Waits until the pictures of all tasks are made: after that only the clock decides when they end."""
        await self._desk.workshop.rendered()

    def break_down(self, *, refuse: bool = False) -> None:
        """From now on every request of both ports is answered 500, or (``refuse``) no connection is taken."""
        if refuse:
            self._refuse()
        else:
            self._desk.broken = True

    async def repair(self) -> None:
        """Ends ``break_down`` and the `Refuse` fault; the ports are the same as before. OSError: one is taken."""
        self._desk.broken = False
        await self._api.listener.open()
        await self._results.listener.open()

    @property
    def url(self) -> str:
        """The base URL, as ``api.base_url`` has it: http://127.0.0.1:PORT."""
        return self._api.url

    @property
    def files_url(self) -> str:
        """The base URL of the results, on another port."""
        return self._results.url

    @property
    def settings(self) -> Settings:
        """What it is told to be; may be replaced while it runs, but for clock, seed and enhance."""
        return self._desk.settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        self._desk.settings = self._desk.workshop.settings = settings

    @property
    def script(self) -> Script:
        """The faults to come."""
        return self._desk.script

    @property
    def requests(self) -> list[Seen]:
        """Every request of both ports, in the order in which they came; at most the last 200 000."""
        return self._desk.requests

    @property
    def tasks(self) -> dict[str, Task]:
        """Every task that was ever accepted, by its id. One that is removed from here is unknown (404)."""
        return self._desk.workshop.tasks

    @property
    def web(self) -> dict[str, bytes]:
        """Stands in for the internet: image_url -> the bytes there. May be filled at any time."""
        return self._desk.workshop.web

    @property
    def ledger(self) -> list[Charge]:
        """The charges so far. A task is charged when it succeeds, whether or not anybody asks for it."""
        return self._desk.workshop.ledger

    @property
    def credits(self) -> int:
        """Credits used up so far."""
        return sum(charge.credits for charge in self.ledger)

    def _refuse(self) -> None:
        self._api.listener.shut()
        self._results.listener.shut()


async def serve(settings: Settings, port: int, announce: Callable[[str], None]) -> None:
    """Runs a simulator until cancelled; announces its base URL once it takes connections.

    Raises OSError where the port is taken.
    """
    simulator = Simulator(settings)
    await simulator.start(port)
    try:
        announce(simulator.url)
        await asyncio.Event().wait()
    finally:
        await simulator.stop()
