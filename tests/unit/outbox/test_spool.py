"""The spool keeps what was paid for, and nothing else."""

import os
import stat
from pathlib import Path

import pytest

from picwish_watchd.outbox.spool import Spool


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "journal.db.spool")
    spool.ensure_folder()
    return spool


def keep_result(spool: Spool, job_id: int, text: str = "result") -> Path:
    temp = spool.new_part_path(job_id, "get")
    temp.write_text(text)
    spool.commit_result(temp, job_id)
    return spool.result_path(job_id)


def test_the_folder_is_for_the_daemon_alone(spool: Spool) -> None:
    assert stat.S_IMODE(spool.folder.stat().st_mode) == 0o700
    spool.folder.chmod(0o755)
    spool.ensure_folder()
    assert stat.S_IMODE(spool.folder.stat().st_mode) == 0o700


def test_a_spool_without_a_journals_folder_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Spool(tmp_path / "away" / "spool").ensure_folder()


def test_a_result_is_kept_under_its_job(spool: Spool) -> None:
    assert keep_result(spool, 7).read_text() == "result"
    assert os.listdir(spool.folder) == ["7.result"]


def test_a_second_result_replaces_the_first(spool: Spool) -> None:
    keep_result(spool, 7, "one")
    assert keep_result(spool, 7, "two").read_text() == "two"


def test_a_fresh_name_is_free_and_its_own_for_each_writer(spool: Spool) -> None:
    spool.new_part_path(7, "get").write_text("left over")
    assert not spool.new_part_path(7, "get").exists()
    assert spool.new_part_path(7, "get") != spool.new_part_path(7, "post")


def test_discarding_twice_is_fine(spool: Spool) -> None:
    keep_result(spool, 7)
    spool.remove_result(7)
    spool.remove_result(7)
    assert os.listdir(spool.folder) == []


def test_a_sweep_leaves_what_is_wanted_and_what_is_not_ours(spool: Spool) -> None:
    for job_id in (7, 8, 70):
        keep_result(spool, job_id)
    spool.new_part_path(7, "get").write_text("half")
    (spool.folder / "README").write_text("somebody's")
    assert spool.remove_orphans({7, 70}) == 2
    assert sorted(os.listdir(spool.folder)) == ["7.result", "70.result", "README"]


def test_free_space_is_in_bytes(spool: Spool) -> None:
    assert spool.free_space() > 1 << 20
