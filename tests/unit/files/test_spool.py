"""The spool keeps what was paid for, and nothing else."""

import os
import stat
from pathlib import Path

import pytest

from picwish_watchd.outbox.spool import Spool


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "journal.db.spool")
    spool.prepare()
    return spool


def kept(spool: Spool, job_id: int, text: str = "result") -> Path:
    temp = spool.fresh(job_id, "get")
    temp.write_text(text)
    spool.keep(temp, job_id)
    return spool.path(job_id)


def test_the_folder_is_for_the_daemon_alone(spool: Spool) -> None:
    assert stat.S_IMODE(spool.folder.stat().st_mode) == 0o700
    spool.folder.chmod(0o755)
    spool.prepare()
    assert stat.S_IMODE(spool.folder.stat().st_mode) == 0o700


def test_a_spool_without_a_journals_folder_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Spool(tmp_path / "away" / "spool").prepare()


def test_a_result_is_kept_under_its_job(spool: Spool) -> None:
    assert kept(spool, 7).read_text() == "result"
    assert os.listdir(spool.folder) == ["7.result"]


def test_a_second_result_replaces_the_first(spool: Spool) -> None:
    kept(spool, 7, "one")
    assert kept(spool, 7, "two").read_text() == "two"


def test_a_fresh_name_is_free_and_its_own_for_each_writer(spool: Spool) -> None:
    spool.fresh(7, "get").write_text("left over")
    assert not spool.fresh(7, "get").exists()
    assert spool.fresh(7, "get") != spool.fresh(7, "post")


def test_discarding_twice_is_fine(spool: Spool) -> None:
    kept(spool, 7)
    spool.discard(7)
    spool.discard(7)
    assert os.listdir(spool.folder) == []


def test_a_sweep_leaves_what_is_wanted_and_what_is_not_ours(spool: Spool) -> None:
    for job_id in (7, 8, 70):
        kept(spool, job_id)
    spool.fresh(7, "get").write_text("half")
    (spool.folder / "README").write_text("somebody's")
    assert spool.sweep({7, 70}) == 2
    assert sorted(os.listdir(spool.folder)) == ["7.result", "70.result", "README"]


def test_free_room_is_told_in_bytes(spool: Spool) -> None:
    assert spool.free() > 1 << 20
