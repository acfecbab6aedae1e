"""An outbox on a share: it takes a.jpg and A.JPG for one name, and refuses names that Windows does not know."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from picwish_watchd.job import State
from picwish_watchd.journal.reader import JournalReader
from tests.support.house import House
from tests.support.share import shared


@pytest.fixture
def folding(tmp_path: Path) -> Iterator[Path]:
    with shared(tmp_path, "fold") as mount:
        yield mount


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def told(house: House, name: str) -> str:
    """The history of a file's job, as `show` tells it."""
    reader = JournalReader.open(house.journal)
    try:
        return "\n".join(event.message for event in reader.history(house.job(name).id))
    finally:
        reader.close()


async def test_names_that_differ_in_case_only_never_overwrite_each_others_result(folding: Path, house: House) -> None:
    house.rule = {"outbox": "share/outbox", "if_exists": "overwrite"}
    for number, name in enumerate(("Sub/a.jpg", "Sub/A.JPG", "sub/a.jpg", "Sub/A.jpg")):
        house.drop(name, seed=number)
    assert await house.drain() == 0
    assert {name.casefold() for name in names(folding / "outbox")} == {
        "sub/a.jpg", "sub/a-1.jpg", "sub/a-2.jpg", "sub/a-3.jpg",
    }  # fmt: skip
    assert len({job.output for job in house.jobs(State.DONE)}) == 4


async def test_what_is_not_ours_is_overwritten_when_told_however_it_is_spelled(folding: Path, house: House) -> None:
    house.rule = {"outbox": "share/outbox", "if_exists": "overwrite"}
    (folding / "outbox").mkdir()
    (folding / "outbox" / "A.JPG").write_bytes(b"somebody's")
    house.drop("a.jpg", seed=1)
    assert await house.drain() == 0
    [name] = names(folding / "outbox")
    assert name.casefold() == "a.jpg"


async def test_skip_finds_a_result_however_it_is_spelled_before_it_pays(folding: Path, house: House) -> None:
    house.rule = {"outbox": "share/outbox", "if_exists": "skip"}
    (folding / "outbox" / "SUB").mkdir(parents=True)
    (folding / "outbox" / "SUB" / "A.PNG").write_bytes(b"there already")
    house.drop("sub/a.jpg")
    assert await house.drain() == 0
    assert house.creates() == 0
    found = house.job("sub/a.jpg").output
    assert found is not None
    assert found.samefile(folding / "outbox" / "SUB" / "A.PNG")


@pytest.mark.parametrize(
    ("answer", "if_exists"), [("EINVAL", "overwrite"), ("ENOENT", "rename")]
)  # vfat and NTFS, SMB servers
async def test_a_name_that_the_share_refuses_is_delivered_and_archived_under_one_that_it_takes(
    answer: str, if_exists: str, tmp_path: Path, house: House
) -> None:
    with shared(tmp_path, f"refuse={answer}") as mount:
        house.rule = {
            "outbox": "share/outbox", "sidecar": True, "if_exists": if_exists, "on_success": "move",
            "archive": "share/archive",
        }  # fmt: skip
        house.drop("12:30?.jpg", seed=1)
        house.drop("12_30_.jpg", seed=2)
        house.drop("what?/then. /a|b.jpg", seed=3)
        house.drop("plain.jpg", seed=4)
        house.drop(os.fsdecode(b"caf\xe9.jpg"), seed=5)
        assert await house.drain() == 0
        images = [name for name in names(mount / "outbox") if not name.endswith(".json")]
        assert images == ["12_30_-1.jpg", "12_30_.jpg", "caf_.jpg", "plain.jpg", "what_/then_/a_b.jpg"]
        assert names(mount / "archive") == images
        assert names(house.inbox) == []
        job = house.job("what?/then. /a|b.jpg")
        assert job.output == mount / "outbox/what_/then_/a_b.jpg"
        assert json.loads((mount / "outbox/what_/then_/a_b.jpg.json").read_text())["output"] == str(job.output)
        assert "the outbox does not take the name what?/then. /a|b.jpg" in told(house, "what?/then. /a|b.jpg")
        assert "it is delivered as what_/then_/a_b.jpg" in told(house, "what?/then. /a|b.jpg")
        assert "does not take" not in told(house, "plain.jpg")


async def test_a_name_that_is_too_long_for_the_share_is_shortened(tmp_path: Path, house: House) -> None:
    with shared(tmp_path, "longest=143") as mount:  # as eCryptfs on a NAS
        house.rule = {"outbox": "share/outbox", "sidecar": True, "if_exists": "overwrite"}
        for number, last in enumerate("ab"):
            house.drop("ä" * 110 + f"{last}.jpg", seed=number)
        assert await house.drain() == 0
        assert len(names(mount / "outbox")) == 4
        assert all(len(os.fsencode(name)) <= 143 for name in names(mount / "outbox"))


async def test_skip_finds_what_was_delivered_under_another_name_than_the_share_refused(
    tmp_path: Path, house: House
) -> None:
    with shared(tmp_path, "refuse=EINVAL") as mount:
        house.rule = {"outbox": "share/outbox", "if_exists": "skip"}
        (mount / "outbox" / "what_").mkdir(parents=True)
        (mount / "outbox" / "what_" / "a_.jpg").write_bytes(b"there already")
        house.drop("what?/a?.jpg")
        assert await house.drain() == 0
        assert house.creates() == 0
        assert house.job("what?/a?.jpg").output == mount / "outbox/what_/a_.jpg"
