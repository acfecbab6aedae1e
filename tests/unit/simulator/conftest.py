"""Fixtures that start a simulator and a client for each test."""

from collections.abc import AsyncIterator

import httpx
import pytest

from picwish_watchd.simulator import Settings, Simulator
from tests.unit.simulator.simulator_client import ManualClock, SimulatorClient


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def simulator(clock: ManualClock) -> AsyncIterator[Simulator]:
    settings = Settings(qps=None, processing=(10.0, 0.0), clock=clock)
    async with Simulator(settings) as simulator:
        yield simulator


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[SimulatorClient]:
    async with httpx.AsyncClient(trust_env=False, verify=False, timeout=10) as http:
        yield SimulatorClient(simulator, http)
