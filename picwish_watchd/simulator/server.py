"""The simulator as a whole: two loopback ports, and the controls for tests."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from picwish_watchd.simulator.api import ApiServer
from picwish_watchd.simulator.dispatch import RequestDispatcher
from picwish_watchd.simulator.faults import FaultScript
from picwish_watchd.simulator.ledger import LedgerEntry, RecordedRequest
from picwish_watchd.simulator.result_server import ResultServer
from picwish_watchd.simulator.settings import Settings
from picwish_watchd.simulator.tasks import Task


class Simulator:
    """A stand-in for PicWish on 127.0.0.1, and on no other address.

    ``async with Simulator(Settings(...)) as sim`` starts and stops it. Its requests, tasks and charges can still be
    read after it has stopped.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._dispatcher = RequestDispatcher(settings or Settings(), self._refuse_connections)
        self._result_server = ResultServer(self._dispatcher)
        self._api_server = ApiServer(self._dispatcher, self._result_server)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self, port: int = 0) -> None:
        """Open both ports; ``port`` is the API's, or 0 for any free one. Raises OSError if it is taken."""
        self._dispatcher.task_store.open()
        try:
            await self._api_server.listener.open(port)
            await self._result_server.listener.open()
        except OSError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Break all connections, close the ports and forget all tasks; takes well under a second.

        After another `start` the ports are the same, and the old tasks are unknown (404).
        """
        await self._api_server.listener.close()
        await self._result_server.listener.close()
        await self._dispatcher.task_store.close()

    async def wait_until_rendered(self) -> None:
        """Wait until the results of all tasks are rendered: after that only the clock decides when tasks end."""
        await self._dispatcher.task_store.wait_until_rendered()

    def break_down(self, *, refuse: bool = False) -> None:
        """Answer every request on both ports with 500 from now on, or with ``refuse`` accept no connections."""
        if refuse:
            self._refuse_connections()
        else:
            self._dispatcher.is_broken = True

    async def repair(self) -> None:
        """End `break_down` and `RefuseConnections`, on the same ports. Raises OSError if one of them is taken."""
        self._dispatcher.is_broken = False
        await self._api_server.listener.open()
        await self._result_server.listener.open()

    @property
    def url(self) -> str:
        """The base URL for ``api.base_url``: http://127.0.0.1:PORT."""
        return self._api_server.url

    @property
    def results_url(self) -> str:
        """The base URL of the results, which are on another port."""
        return self._result_server.url

    @property
    def settings(self) -> Settings:
        """The settings. They may be replaced while it runs, except clock, seed and enhance."""
        return self._dispatcher.settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        self._dispatcher.settings = self._dispatcher.task_store.settings = settings

    @property
    def script(self) -> FaultScript:
        """The scripted faults still to come."""
        return self._dispatcher.script

    @property
    def requests(self) -> list[RecordedRequest]:
        """The requests of both ports in the order of arrival, up to the last 200,000."""
        return self._dispatcher.requests

    @property
    def tasks(self) -> dict[str, Task]:
        """All tasks that were ever accepted, by id. A task that is removed from here is unknown (404)."""
        return self._dispatcher.task_store.tasks

    @property
    def remote_images(self) -> dict[str, bytes]:
        """A stand-in for the internet: image_url -> the bytes at it. May be changed at any time."""
        return self._dispatcher.task_store.remote_images

    @property
    def ledger(self) -> list[LedgerEntry]:
        """The charges so far. A task is charged when it succeeds, even if it is never queried."""
        return self._dispatcher.task_store.ledger

    @property
    def credits_used(self) -> int:
        """Credits charged so far."""
        return sum(charge.credits for charge in self.ledger)

    def _refuse_connections(self) -> None:
        self._api_server.listener.refuse_connections()
        self._result_server.listener.refuse_connections()


async def run_simulator(settings: Settings, port: int, announce: Callable[[str], None]) -> None:
    """Run a simulator until cancelled; call ``announce`` with its base URL once it accepts connections.

    Raises OSError if the port is taken.
    """
    simulator = Simulator(settings)
    await simulator.start(port)
    try:
        announce(simulator.url)
        await asyncio.Event().wait()
    finally:
        await simulator.stop()
