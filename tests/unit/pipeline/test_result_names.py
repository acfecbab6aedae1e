"""`if_exists: skip`: a job and a candidate for one are skipped by the same file."""

from pathlib import Path

import pytest

from picwish_watchd.config.schema import IfExists, Rule
from picwish_watchd.fs.atomic_write import FolderUnavailable
from picwish_watchd.pipeline.result_names import find_existing_result
from tests.unit.journal.job_factory import new_job


@pytest.mark.parametrize(
    ("if_exists", "existing", "skipped"),
    [
        (IfExists.SKIP, "a.png", True),
        (IfExists.SKIP, "b.png", False),
        (IfExists.RENAME, "a.png", False),
        (IfExists.OVERWRITE, "a.png", False),
    ],
)
def test_only_a_rule_that_skips_finds_a_result_of_any_extension(
    tmp_path: Path, if_exists: IfExists, existing: str, skipped: bool
) -> None:
    (tmp_path / existing).touch()
    rule = Rule(name="scans", inbox=Path("/inbox"), outbox=tmp_path, if_exists=if_exists)
    assert find_existing_result(rule, new_job("a.jpg"), 0.0) == (tmp_path / existing if skipped else None)


def test_an_outbox_that_cannot_be_read_is_no_empty_one(tmp_path: Path) -> None:
    rule = Rule(name="scans", inbox=Path("/inbox"), outbox=tmp_path / "away", if_exists=IfExists.SKIP)
    assert isinstance(find_existing_result(rule, new_job("a.jpg"), 0.0), FolderUnavailable)
