"""An outbox on a share: it takes a.jpg and A.JPG for one name, and refuses names that Windows does not know."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from picwish_watchd.job import State
from picwish_watchd.journal.reader import JournalReader
from tests.support.house import Harness
from tests.support.share import mount_share


@pytest.fixture
def folding(tmp_path: Path) -> Iterator[Path]:
    with mount_share(tmp_path, "fold") as mount:
        yield mount


def list_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def history_text(house: Harness, name: str) -> str:
    """The history of a file's job, as `show` tells it."""
    reader = JournalReader.open(house.journal)
    try:
        return "\n".join(event.message for event in reader.history(house.job(name).id))
    finally:
        reader.close()


async def test_names_that_differ_only_in_case_never_overwrite_each_other(folding: Path, house: Harness) -> None:
    house.rule = {"outbox": "share/outbox", "if_exists": "overwrite"}
    for number, name in enumerate(("Sub/a.jpg", "Sub/A.JPG", "sub/a.jpg", "Sub/A.jpg")):
        house.drop_file(name, seed=number)
    assert await house.run_once() == 0
    assert {name.casefold() for name in list_files(folding / "outbox")} == {
        "sub/a.jpg",
        "sub/a-1.jpg",
        "sub/a-2.jpg",
        "sub/a-3.jpg",
    }
    assert len({job.output for job in house.jobs(State.DONE)}) == 4


async def test_overwrite_replaces_a_foreign_file_spelled_in_another_case(folding: Path, house: Harness) -> None:
    house.rule = {"outbox": "share/outbox", "if_exists": "overwrite"}
    (folding / "outbox").mkdir()
    (folding / "outbox" / "A.JPG").write_bytes(b"somebody's")
    house.drop_file("a.jpg", seed=1)
    assert await house.run_once() == 0
    [name] = list_files(folding / "outbox")
    assert name.casefold() == "a.jpg"


async def test_skip_finds_a_result_spelled_in_another_case_before_it_pays(folding: Path, house: Harness) -> None:
    house.rule = {"outbox": "share/outbox", "if_exists": "skip"}
    (folding / "outbox" / "SUB").mkdir(parents=True)
    (folding / "outbox" / "SUB" / "A.PNG").write_bytes(b"there already")
    house.drop_file("sub/a.jpg")
    assert await house.run_once() == 0
    assert house.count_creates() == 0
    found = house.job("sub/a.jpg").output
    assert found is not None
    assert found.samefile(folding / "outbox" / "SUB" / "A.PNG")


@pytest.mark.parametrize(
    ("answer", "if_exists"),
    [("EINVAL", "overwrite"), ("ENOENT", "rename")],
    # vfat and NTFS, SMB servers
)
async def test_a_name_the_share_refuses_is_replaced_in_outbox_and_archive(
    answer: str, if_exists: str, tmp_path: Path, house: Harness
) -> None:
    with mount_share(tmp_path, f"refuse={answer}") as mount:
        house.rule = {
            "outbox": "share/outbox",
            "sidecar": True,
            "if_exists": if_exists,
            "on_success": "move",
            "archive": "share/archive",
        }
        house.drop_file("12:30?.jpg", seed=1)
        house.drop_file("12_30_.jpg", seed=2)
        house.drop_file("what?/then. /a|b.jpg", seed=3)
        house.drop_file("plain.jpg", seed=4)
        house.drop_file(os.fsdecode(b"caf\xe9.jpg"), seed=5)
        assert await house.run_once() == 0
        images = [name for name in list_files(mount / "outbox") if not name.endswith(".json")]
        assert images == ["12_30_-1.jpg", "12_30_.jpg", "caf_.jpg", "plain.jpg", "what_/then_/a_b.jpg"]
        assert list_files(mount / "archive") == images
        assert list_files(house.inbox) == []
        job = house.job("what?/then. /a|b.jpg")
        assert job.output == mount / "outbox/what_/then_/a_b.jpg"
        assert json.loads((mount / "outbox/what_/then_/a_b.jpg.json").read_text())["output"] == str(job.output)
        assert "the outbox does not take the name what?/then. /a|b.jpg" in history_text(house, "what?/then. /a|b.jpg")
        assert "it is delivered as what_/then_/a_b.jpg" in history_text(house, "what?/then. /a|b.jpg")
        assert "does not take" not in history_text(house, "plain.jpg")


async def test_a_name_that_is_too_long_for_the_share_is_shortened(tmp_path: Path, house: Harness) -> None:
    # as eCryptfs on a NAS
    with mount_share(tmp_path, "longest=143") as mount:
        house.rule = {"outbox": "share/outbox", "sidecar": True, "if_exists": "overwrite"}
        for number, last in enumerate("ab"):
            house.drop_file("ä" * 110 + f"{last}.jpg", seed=number)
        assert await house.run_once() == 0
        assert len(list_files(mount / "outbox")) == 4
        assert all(len(os.fsencode(name)) <= 143 for name in list_files(mount / "outbox"))


async def test_skip_finds_a_result_delivered_under_a_replaced_name(tmp_path: Path, house: Harness) -> None:
    with mount_share(tmp_path, "refuse=EINVAL") as mount:
        house.rule = {"outbox": "share/outbox", "if_exists": "skip"}
        (mount / "outbox" / "what_").mkdir(parents=True)
        (mount / "outbox" / "what_" / "a_.jpg").write_bytes(b"there already")
        house.drop_file("what?/a?.jpg")
        assert await house.run_once() == 0
        assert house.count_creates() == 0
        assert house.job("what?/a?.jpg").output == mount / "outbox/what_/a_.jpg"
