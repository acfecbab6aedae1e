"""Fixtures that open an empty journal with a fake clock for each test."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from picwish_watchd.journal.writer import Journal
from tests.support.fake_clock import FakeClock

# Each commit is synced, which takes most of the time on a disk.
_MEMORY = Path("/dev/shm")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def journal_path(tmp_path: Path) -> Iterator[Path]:
    parent = _MEMORY if os.access(_MEMORY, os.W_OK) else tmp_path
    with tempfile.TemporaryDirectory(dir=parent, prefix="journal-") as folder:
        yield Path(folder) / "state" / "journal.db"


@pytest.fixture
def journal(journal_path: Path, clock: FakeClock) -> Iterator[Journal]:
    journal = Journal.open_for_writing(journal_path, clock)
    yield journal
    journal.close()
