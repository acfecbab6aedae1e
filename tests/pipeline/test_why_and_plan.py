"""`why` and `plan`: what they tell of real folders, before and after a run; they submit nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from picwish_watchd.cli import main
from tests.support.house import House


def asked(house: House, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = main([*words, "--json", "-c", str(house.configure())])
    return code, json.loads(capsys.readouterr().out)


async def test_plan_counts_images_copies_and_rejected_before_and_after(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    house.drop("a.jpg", seed=1)
    house.drop("copy.jpg", seed=1)
    house.drop("bad.jpg", b"no picture" * 50)
    code, told = asked(house, capsys, "plan")
    row = told["rules"][0]
    assert (code, row["images"], row["copies"], row["rejected"], told["credits"]) == (0, 1, 1, 1, 5)
    assert house.simulator.requests == []
    await house.drain()
    house.drop("again.jpg", seed=1)
    _, told = asked(house, capsys, "plan")
    row = told["rules"][0]
    assert (row["images"], row["copies"], row["rejected"], told["credits"]) == (0, 1, 0, 0)


async def test_plan_exits_1_and_names_an_inbox_that_is_away(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    house.inbox.rmdir()
    code, told = asked(house, capsys, "plan")
    assert code == 1
    assert "inbox" in told["rules"][0]["away"]


async def test_why_tells_of_jobs_and_their_results(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    source = house.drop("a.jpg")
    await house.drain()
    code, told = asked(house, capsys, "why", str(source))
    assert (code, told["rule"], told["job"], told["state"]) == (0, "scans", 1, "done")
    code, told = asked(house, capsys, "why", str(house.outbox / "a.jpg"))
    assert (code, told["job"]) == (0, 1)
    assert "result of job 1" in told["reason"]


@pytest.mark.parametrize(
    ("name", "says"),
    [("notes.txt", "include"), ("@eaDir/a.jpg", '"@eaDir"'), ("a.jpg.part", '"*.part"'), (".a.jpg", '".*"')],
)
async def test_why_names_the_pattern_that_ignores_a_file(
    house: House, capsys: pytest.CaptureFixture[str], name: str, says: str
) -> None:
    code, told = asked(house, capsys, "why", str(house.drop(name)))
    assert (code, told["rule"], told["job"]) == (0, None, None)
    assert says in told["reason"]


async def test_why_exits_1_for_what_nobody_knows(
    house: House, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for path in (house.inbox / "none.jpg", tmp_path / "elsewhere.jpg"):
        assert asked(house, capsys, "why", str(path))[0] == 1
