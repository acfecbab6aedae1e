"""What all tests share."""

from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest

from picwish_watchd.simulator import Simulator
from tests.support.house import FAST, House


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first (they have a limit of their own), so that none of them is what all the others wait for."""
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test logged may quote a file name that is not UTF-8; on its way to pytest's main process it must be."""
    report = yield
    report.sections = [(title, text.encode("utf-8", "backslashreplace").decode()) for title, text in report.sections]
    return report


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have a key, a proxy, or systemd."""
    for name in (
        "PICWISH_API_KEY", "PICWISH_WATCHD_CONFIG", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC",
        "JOURNAL_STREAM", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _no_secrets_from_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process has read as a secret it hides for ever; here, until the end of the test."""
    monkeypatch.setattr("picwish_watchd.secrecy._secrets", ())


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """A house against a fast simulator; at the end the laws are asserted."""
    async with Simulator(FAST) as simulator:
        built = House(tmp_path, simulator)
        yield built
        built.check_laws()
