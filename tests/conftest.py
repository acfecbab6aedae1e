"""Fixtures and hooks that all tests share."""

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
    """Run the tests with a time limit of their own first: they take longest and would otherwise end the run alone."""
    # The collected items live until the end of the run: spare the garbage collector from looking through them.
    gc.freeze()
    items.sort(key=lambda item: not any(item.get_closest_marker(name) for name in ("timeout", "untraced")))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Run a test marked `untraced`, and the processes that it starts, without measuring coverage."""
    tracer = coverage.Coverage.current() if item.get_closest_marker("untraced") else None
    if tracer is None:
        return (yield)
    removed = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("COVERAGE_PROCESS")}
    tracer.stop()
    try:
        return (yield)
    finally:
        tracer.start()
        os.environ.update(removed)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what is not UTF-8 in captured output (file names in log lines), so that a worker can send it to pytest."""
    report = yield
    report.sections = [(title, text.encode("utf-8", "backslashreplace").decode()) for title, text in report.sections]
    return report


@pytest.fixture(autouse=True)
def _isolate_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove settings of the caller's environment: API key, proxies, systemd variables."""
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
    """Forget registered secrets after each test; a real process redacts them until it ends."""
    monkeypatch.setattr("picwish_watchd.redaction._secrets", {})


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a private key and a self-signed certificate for 127.0.0.1."""
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
    """Yield a harness with a fast simulator; assert the three laws when the test has ended."""
    async with Simulator(FAST_SETTINGS) as simulator:
        instance = Harness(tmp_path, simulator)
        yield instance
        instance.check_laws()
