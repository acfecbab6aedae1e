"""Comments are on lines of their own, in all code of the project, and leave the formatter on."""

import io
import re
import tokenize
from pathlib import Path

import pytest

# The tests read the files and run nothing of the package.
pytestmark = pytest.mark.untraced

PROJECT = Path(__file__).parent.parent
CODE = [
    path for folder in ("picwish_watchd", "tests", "benchmarks") for path in sorted((PROJECT / folder).rglob("*.py"))
]


def project_name(path: Path) -> str:
    """Return a file's path below the project, as it is shown in test names and messages."""
    return str(path.relative_to(PROJECT))


def find_bad_comments(text: str) -> list[str]:
    """Return comments at the end of a line of code, and comments that switch the formatter off.

    ``# noqa`` and ``# type:`` have to be at the end of a line, and may be.
    """
    bad = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        switches_off = re.match(r"#\s*fmt:\s*(skip|off|on)", token.string)
        follows_code = bool(token.line[: token.start[1]].strip())
        if switches_off or (follows_code and not re.match(r"# (noqa|type:)", token.string)):
            bad.append(f"line {token.start[0]}: {token.string}")
    return bad


@pytest.mark.parametrize("path", CODE, ids=project_name)
def test_comments_are_on_lines_of_their_own_and_leave_the_formatter_on(path: Path) -> None:
    assert find_bad_comments(path.read_text()) == []


@pytest.mark.parametrize("comment", ["# seconds", "#: seconds", "# fmt: skip", "# not noqa"])
def test_a_comment_at_the_end_of_a_line_is_found(comment: str) -> None:
    assert find_bad_comments(f"a = 1\nx = 2  {comment}\n") == [f"line 2: {comment}"]


def test_comments_that_are_right_are_not_found() -> None:
    assert find_bad_comments('# seconds\nx = "# no comment"\ny = f(x)  # noqa: S101\nz = y  # type: ignore\n') == []
