"""The rules of CONTRIBUTING.md for sizes and words, as far as a test can hold them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import picwish_watchd

# The tests read the files and run nothing of the package.
pytestmark = pytest.mark.untraced

PACKAGE = Path(picwish_watchd.__file__).parent
PROJECT = PACKAGE.parent
FILES = sorted(PACKAGE.rglob("*.py"))
PROSE = [*FILES, *sorted((PROJECT / "docs").glob("*.md")), PROJECT / "README.md"]

#: lines
MAX_FILE, MAX_CLASS, MAX_FUNCTION = 400, 250, 40

#: Words that say little or say it in a roundabout way, each as a regular expression.
FORBIDDEN_WORDS = (
    "told",
    "tells? of",
    "lies",
    "stands",
    "so many",
    "whoever",
    "whatever lies",
    "by itself",
    "(?:bring|brings|brought) (?:[a-z]+ )?to (?:its|their) end",
    "mend(?:s|ed|ing)?",
    "comes to",
    "the same;",
    "as ever",
    "befall(?:s|en)?",
    "look(?:s|ed|ing)? after",
    "is done with it",
)
#: What may stay although it holds a forbidden word: a file, and the text in it.
EXCEPTIONS = (
    # A key of the state file, which earlier versions wrote, and the attributes that it is named after.
    ("picwish_watchd/notify/state_file.py", "told: bool"),
    ("picwish_watchd/notify/state_file.py", "told: dict"),
    ("picwish_watchd/notify/state_file.py", "told={}"),
    ("picwish_watchd/notify/alert_lifecycle.py", "state.told"),
    ("picwish_watchd/notify/dispatcher.py", "state.told"),
    ("picwish_watchd/notify/failures.py", "state.told"),
)


def project_name(path: Path) -> str:
    """Return a file's path below the project, as it is shown in test names and messages."""
    return str(path.relative_to(PROJECT))


def count_lines(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> int:
    """Return the number of lines of a definition, without its decorators."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def find_oversized(text: str) -> list[str]:
    """Return a description of the file, and of each class and function in it, that is too long."""
    oversized = []
    if (lines := text.count("\n")) > MAX_FILE:
        oversized.append(f"the file has {lines} lines; at most {MAX_FILE}")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            most = MAX_CLASS
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            most = MAX_FUNCTION
        else:
            continue
        if (lines := count_lines(node)) > most:
            oversized.append(f"{node.name} has {lines} lines; at most {most}")
    return oversized


def find_forbidden_words(text: str) -> Iterator[str]:
    """Yield each forbidden word with its line; words may be on two lines, the second of which may be a comment."""
    for words in FORBIDDEN_WORDS:
        pattern = words.replace(" ", r"(?:\s|#:?)+")
        end = r"\b" if words[-1].isalnum() else ""
        for match in re.finditer(rf"\b(?:{pattern}){end}", text, re.IGNORECASE):
            yield f"line {text.count(chr(10), 0, match.start()) + 1}: {match[0]}"


@pytest.mark.parametrize("path", FILES, ids=project_name)
def test_files_classes_and_functions_stay_small(path: Path) -> None:
    assert find_oversized(path.read_text()) == []


@pytest.mark.parametrize("path", PROSE, ids=project_name)
def test_prose_uses_plain_words(path: Path) -> None:
    text = path.read_text()
    for name, exception in EXCEPTIONS:
        if name == project_name(path):
            text = text.replace(exception, "")
    assert list(find_forbidden_words(text)) == []


@pytest.mark.parametrize(("name", "exception"), EXCEPTIONS, ids=lambda value: value)
def test_no_exception_is_out_of_date(name: str, exception: str) -> None:
    assert exception in (PROJECT / name).read_text()


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("x = 1\n" * 401, "the file has 401 lines; at most 400"),
        ("class A:\n" + "    x = 1\n" * 250, "A has 251 lines; at most 250"),
        ("def f():\n" + "    x = 1\n" * 40, "f has 41 lines; at most 40"),
        ("async def f():\n" + "    x = 1\n" * 40, "f has 41 lines; at most 40"),
    ],
    ids=["file", "class", "function", "coroutine"],
)
def test_what_is_one_line_too_long_is_found(text: str, finding: str) -> None:
    assert find_oversized(text) == [finding]


@pytest.mark.parametrize(
    "text",
    ["he was Told", "it tells of it", "# so\n# many", "by  itself", "brings it to its end", "mended", "The same; x"],
)
def test_a_forbidden_word_is_found(text: str) -> None:
    assert len(list(find_forbidden_words(text))) == 1


def test_words_that_hold_a_forbidden_word_are_not_found() -> None:
    assert list(find_forbidden_words("a stand-in, recommended amendments, untold, flies")) == []
