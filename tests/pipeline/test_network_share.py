"""An outbox on a share that treats a.jpg and A.JPG as one name and refuses names that Windows does not allow."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from picwish_watchd.job import State
from picwish_watchd.journal.reader import JournalReader
from tests.support.fuse_share import mount_share
from tests.support.harness import Harness


@pytest.fixture
def case_folding_share(tmp_path: Path) -> Iterator[Path]:
    with mount_share(tmp_path, "fold") as mount:
        yield mount


def list_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def history_text(harness: Harness, name: str) -> str:
    """Return the history of a file's job as `show` prints it."""
    reader = JournalReader.open(harness.journal)
    try:
        return "\n".join(event.message for event in reader.history(harness.job(name).id))
    finally:
        reader.close()


async def test_names_that_differ_only_in_case_never_overwrite_each_other(
    case_folding_share: Path, harness: Harness
) -> None:
    harness.rule = {"outbox": "share/outbox", "if_exists": "overwrite"}
    for number, name in enumerate(("Sub/a.jpg", "Sub/A.JPG", "sub/a.jpg", "Sub/A.jpg")):
        harness.drop_file(name, seed=number)
    assert await harness.run_once() == 0
    assert {name.casefold() for name in list_files(case_folding_share / "outbox")} == {
        "sub/a.jpg",
        "sub/a-1.jpg",
        "sub/a-2.jpg",
        "sub/a-3.jpg",
    }
    assert len({job.output for job in harness.jobs(State.DONE)}) == 4


async def test_overwrite_replaces_a_foreign_file_spelled_in_another_case(
    case_folding_share: Path, harness: Harness
) -> None:
    harness.rule = {"outbox": "share/outbox", "if_exists": "overwrite"}
    (case_folding_share / "outbox").mkdir()
    (case_folding_share / "outbox" / "A.JPG").write_bytes(b"somebody's")
    harness.drop_file("a.jpg", seed=1)
    assert await harness.run_once() == 0
    [name] = list_files(case_folding_share / "outbox")
    assert name.casefold() == "a.jpg"


async def test_skip_finds_a_result_spelled_in_another_case_before_it_pays(
    case_folding_share: Path, harness: Harness
) -> None:
    harness.rule = {"outbox": "share/outbox", "if_exists": "skip"}
    (case_folding_share / "outbox" / "SUB").mkdir(parents=True)
    (case_folding_share / "outbox" / "SUB" / "A.PNG").write_bytes(b"there already")
    harness.drop_file("sub/a.jpg")
    assert await harness.run_once() == 0
    assert harness.count_creates() == 0
    result = harness.job("sub/a.jpg").output
    assert result is not None
    assert result.samefile(case_folding_share / "outbox" / "SUB" / "A.PNG")


# As on vfat, NTFS and SMB servers.
@pytest.mark.parametrize(
    ("error", "if_exists"),
    [("EINVAL", "overwrite"), ("ENOENT", "rename")],
)
async def test_a_name_the_share_refuses_is_replaced_in_outbox_and_archive(
    error: str, if_exists: str, tmp_path: Path, harness: Harness
) -> None:
    with mount_share(tmp_path, f"refuse={error}") as mount:
        harness.rule = {
            "outbox": "share/outbox",
            "sidecar": True,
            "if_exists": if_exists,
            "on_success": "move",
            "archive": "share/archive",
        }
        harness.drop_file("12:30?.jpg", seed=1)
        harness.drop_file("12_30_.jpg", seed=2)
        harness.drop_file("what?/then. /a|b.jpg", seed=3)
        harness.drop_file("plain.jpg", seed=4)
        harness.drop_file(os.fsdecode(b"caf\xe9.jpg"), seed=5)
        assert await harness.run_once() == 0
        images = [name for name in list_files(mount / "outbox") if not name.endswith(".json")]
        assert images == ["12_30_-1.jpg", "12_30_.jpg", "caf_.jpg", "plain.jpg", "what_/then_/a_b.jpg"]
        assert list_files(mount / "archive") == images
        assert list_files(harness.inbox) == []
        job = harness.job("what?/then. /a|b.jpg")
        assert job.output == mount / "outbox/what_/then_/a_b.jpg"
        assert json.loads((mount / "outbox/what_/then_/a_b.jpg.json").read_text())["output"] == str(job.output)
        assert "the outbox does not accept the name what?/then. /a|b.jpg" in history_text(
            harness, "what?/then. /a|b.jpg"
        )
        assert "it is delivered as what_/then_/a_b.jpg" in history_text(harness, "what?/then. /a|b.jpg")
        assert "does not accept" not in history_text(harness, "plain.jpg")


async def test_a_name_that_is_too_long_for_the_share_is_shortened(tmp_path: Path, harness: Harness) -> None:
    # This is the limit of eCryptfs on a NAS.
    with mount_share(tmp_path, "longest=143") as mount:
        harness.rule = {"outbox": "share/outbox", "sidecar": True, "if_exists": "overwrite"}
        for number, last in enumerate("ab"):
            harness.drop_file("ä" * 110 + f"{last}.jpg", seed=number)
        assert await harness.run_once() == 0
        assert len(list_files(mount / "outbox")) == 4
        assert all(len(os.fsencode(name)) <= 143 for name in list_files(mount / "outbox"))


async def test_skip_finds_a_result_delivered_under_a_replaced_name(tmp_path: Path, harness: Harness) -> None:
    with mount_share(tmp_path, "refuse=EINVAL") as mount:
        harness.rule = {"outbox": "share/outbox", "if_exists": "skip"}
        (mount / "outbox" / "what_").mkdir(parents=True)
        (mount / "outbox" / "what_" / "a_.jpg").write_bytes(b"there already")
        harness.drop_file("what?/a?.jpg")
        assert await harness.run_once() == 0
        assert harness.count_creates() == 0
        assert harness.job("what?/a?.jpg").output == mount / "outbox/what_/a_.jpg"
