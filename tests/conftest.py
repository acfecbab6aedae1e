"""What all tests share."""

import gc
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import coverage
import pytest

from picwish_watchd.simulator import Simulator
from tests.support.harness import FAST_SETTINGS, Harness, kill_leftover_processes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first (they have a limit of their own), so that none of them is what all the others wait for."""
    # they stay to the end: no need to look through them again and again
    gc.freeze()
    items.sort(key=lambda item: not any(item.get_closest_marker(name) for name in ("timeout", "untraced")))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """What is marked so is not measured, nor are the processes that it starts."""
    tracer = coverage.Coverage.current() if item.get_closest_marker("untraced") else None
    if tracer is None:
        return (yield)
    outside = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("COVERAGE_PROCESS")}
    tracer.stop()
    try:
        return (yield)
    finally:
        tracer.start()
        os.environ.update(outside)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test logged may quote a file name that is not UTF-8; on its way to pytest's main process it must be."""
    report = yield
    report.sections = [(title, text.encode("utf-8", "backslashreplace").decode()) for title, text in report.sections]
    return report


@pytest.fixture(autouse=True)
def _isolate_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have a key, a proxy, or systemd."""
    for name in (
        "PICWISH_API_KEY",
        "PICWISH_WATCHD_CONFIG",
        "CREDENTIALS_DIRECTORY",
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "JOURNAL_STREAM",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _kill_leftover_daemons() -> Iterator[None]:
    yield
    kill_leftover_processes()


@pytest.fixture(autouse=True)
def _forget_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process has read as a secret it hides for ever; here, until the end of the test."""
    monkeypatch.setattr("picwish_watchd.redaction._secrets", {})


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a self-signed certificate for 127.0.0.1, in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command")
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "1", "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", str(file), "-out", f"{file}.crt"], check=True, capture_output=True)
    file.write_bytes(file.read_bytes() + Path(f"{file}.crt").read_bytes())
    return file


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    """A house against a fast simulator; at the end the laws are asserted."""
    async with Simulator(FAST_SETTINGS) as simulator:
        built = Harness(tmp_path, simulator)
        yield built
        built.check_laws()
