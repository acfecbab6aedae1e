"""The file as plain values, with the line and the spelling of each: the only place that reads YAML.

YAML 1.1 takes ``12:30`` for 750, ``010`` for 8 and ``0644`` for 420. Here only what is written in decimal is a number;
such spellings stay text, and the key's own reader judges them.
"""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from picwish_watchd.config.error_messages import Fault, Where, printable, spell
from picwish_watchd.config.fingerprint import digest_of
from picwish_watchd.errors import ConfigError

#: bytes; two hundred rules with every key take a fifth of it
LARGEST_FILE = 2**20
#: after aliases are followed
MOST_VALUES = 100_000
#: levels; the schema has four
DEEPEST = 20

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_YAML = "tag:yaml.org,2002:"
_KINDS = ("map", "seq", "null", "bool", "int", "float", "str", "timestamp", "value", "merge")
_TAGS = frozenset(_YAML + kind for kind in _KINDS)
# YAML 1.1, 5.1
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9_]{0,30})", re.ASCII)
_FRACTION = re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_SCIENTIFIC = re.compile(r"[-+]?[0-9.]+[eE][-+]?[0-9]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a value stands, and how it is spelt there."""

    line: int
    spelling: str


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says: dicts with text keys, lists, text, int, float, bool and None."""

    file: Path
    data: dict[str, object]
    spots: Mapping[Where, Spot]
    #: keys that stand twice, tags
    faults: tuple[Fault, ...]
    digest: (
        str | None
        #: `digest_of` the file's bytes; None where they do not say all: ``~`` and ``${VAR}`` come from outside
    )

    def line(self, where: Where) -> int:
        """The line of a key, or of what is nearest around it."""
        while where and where not in self.spots:
            where = where[:-1]
        return self.spots[where].line if where else 1

    def spelling(self, where: Where) -> str:
        """What stands there, fit to be quoted in a message: one line, not long."""
        return self.spots[where].spelling if where in self.spots else "nothing"


def read(file: Path) -> Document:
    """Reads a file that holds one YAML mapping.

    Raises `ConfigError`, in a sentence that names the file, if it cannot be opened, is not text in UTF-8, not YAML, no
    mapping, or larger, deeper or more winding than any configuration is.
    """
    content = _bytes(file)
    text = _decoded(file, content)
    try:
        _check_depth(file, text)
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise ConfigError(_syntax(file, text, error)) from None
    if node is None:
        raise ConfigError(f"{file}: is empty; a configuration has at least rules:")
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(
            f"{file}:{_line(node)}: found {_shown(node)} at the top; allowed: keys such as api: and rules:"
        )
    return _Walk(file).document(node, digest_of(content))


def _bytes(file: Path) -> bytes:
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):
            what = "a folder" if os.path.isdir(file) else "not a regular file"
            raise ConfigError(f"{file}: is {what}; the configuration is a file of text")
        with open(file, "rb") as opened:
            content = opened.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{file}: cannot be read: {reason}") from None
    if len(content) > LARGEST_FILE:
        raise ConfigError(f"{file}: is larger than {LARGEST_FILE} bytes; is it a configuration?")
    return content


def _decoded(file: Path, content: bytes) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file}:{line}: is not text in UTF-8; save it in that encoding") from None
    if odd := _UNPRINTABLE.search(text):
        line = text.count("\n", 0, odd.start()) + 1
        raise ConfigError(f"{file}:{line}: found the control character {odd[0]!r}; allowed: text")
    return text


def _check_depth(file: Path, text: str) -> None:
    # On the stream of events, for the composer itself recurses.
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            mark = event.start_mark
            raise _too_deep(file, mark.line + 1 if mark else 1)


def _too_deep(file: Path, line: int) -> ConfigError:
    return ConfigError(f"{file}:{line}: is nested deeper than {DEEPEST} levels; no key needs that")


def _syntax(file: Path, text: str, error: yaml.YAMLError) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return f"{file}: is not YAML: {printable(str(error))}"
    mark = error.problem_mark
    # libyaml's own limit, which its look-ahead meets before we do
    if "nesting depth" in str(error.problem):
        return _too_deep(file, mark.line + 1).message
    around = f" ({error.context})" if error.context else ""
    lines = text.split("\n")
    hint = "; indent with spaces, not with tabs" if mark.line < len(lines) and "\t" in lines[mark.line] else ""
    return f"{file}:{mark.line + 1}: column {mark.column + 1}: is not YAML: {error.problem}{around}{hint}"


class _Walk:
    """Turns one tree of nodes into values; counts what it visits, so that aliases cannot multiply without end."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._spots: dict[Where, Spot] = {}
        self._faults: list[Fault] = []
        self._visited = 0
        self._says_all = True

    def document(self, root: yaml.MappingNode, digest: str) -> Document:
        data = self._mapping(root, ())
        return Document(self._file, data, self._spots, tuple(self._faults), digest if self._says_all else None)

    def _value(self, node: yaml.Node, where: Where, line: int) -> object:
        self._count(line)
        if len(where) > DEEPEST:
            raise _too_deep(self._file, line)
        self._spots[where] = Spot(line, _shown(node))
        if node.tag not in _TAGS:
            self._faults.append(Fault(line, spell(where), f"the tag {_quoted(node.tag)}", "values without tags"))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, where)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*where, i), _line(item)) for i, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        self._says_all &= not node.value.startswith("~") and "${" not in node.value
        return _scalar(node)

    def _count(self, line: int) -> None:
        self._visited += 1
        if self._visited > MOST_VALUES:
            raise ConfigError(f"{self._file}:{line}: has more than {MOST_VALUES} values once its aliases are followed")

    def _mapping(self, node: yaml.MappingNode, where: Where) -> dict[str, object]:
        values: dict[str, object] = {}
        for key, line, child in self._pairs(node, where, 0):
            values[key] = self._value(child, (*where, key), line)
        return values

    def _pairs(self, node: yaml.MappingNode, where: Where, depth: int) -> Iterator[tuple[str, int, yaml.Node]]:
        """Key, line and value: first what ``<<`` merges, so that the mapping's own keys win."""
        if depth > DEEPEST:
            raise _too_deep(self._file, _line(node))
        seen: dict[str, int] = {}
        own: list[tuple[str, int, yaml.Node]] = []
        for key_node, child in node.value:
            key, line = _shown_key(key_node), _line(key_node)
            if key in seen:
                found = f"a second time (the first is on line {seen[key]})"
                self._faults.append(Fault(line, spell((*where, key)), found, "each key once"))
                continue
            seen[key] = line
            if key_node.tag == _YAML + "merge":
                yield from self._merged(child, where, depth)
            else:
                own.append((key, line, child))
        yield from own

    def _merged(self, node: yaml.Node, where: Where, depth: int) -> Iterator[tuple[str, int, yaml.Node]]:
        # The earlier of several mappings wins, so it comes last.
        mappings = reversed(node.value) if isinstance(node, yaml.SequenceNode) else [node]
        for mapping in mappings:
            self._count(_line(mapping))
            if isinstance(mapping, yaml.MappingNode):
                yield from self._pairs(mapping, where, depth + 1)
                continue
            allowed = "a mapping, or a list of mappings, such as *base"
            self._faults.append(Fault(_line(mapping), spell((*where, "<<")), _shown(mapping), allowed))


def _scalar(node: yaml.ScalarNode) -> object:
    """None, bool, int and float where YAML says so and the spelling leaves no doubt; else the text as written."""
    kind, text = node.tag.removeprefix(_YAML), node.value
    if kind == "null":
        return None
    if kind == "bool" and (truth := _truth(text)) is not None:
        return truth
    if kind == "int" and _WHOLE.fullmatch(text):
        return int(text.replace("_", ""))
    if kind == "float" and _FRACTION.fullmatch(text) and len(text) < 100:
        return float(text.replace("_", ""))
    return text


def _truth(text: str) -> bool | None:
    if text.lower() in ("true", "yes", "on"):
        return True
    return False if text.lower() in ("false", "no", "off") else None


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _shown_key(node: yaml.Node) -> str:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else _shown(node)


def _shown(node: yaml.Node) -> str:
    """A node's spelling, with a word on what YAML makes of it where that surprises."""
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list" if node.value else "an empty list"
    # libyaml says "", PyYAML None
    plain = isinstance(node, yaml.ScalarNode) and not node.style
    if not plain or node.tag == _YAML + "str":
        trap = plain and _SCIENTIFIC.fullmatch(node.value)
        return _quoted(node.value) + (" (text to YAML; write the number out)" if trap else "")
    if not node.value:
        return "nothing"
    taken = _taken_for(node.tag.removeprefix(_YAML), node.value)
    return printable(node.value) + (f" ({taken})" if taken else "")


def _taken_for(kind: str, text: str) -> str | None:
    if kind == "null":
        return "nothing to YAML; put it in quotes"
    if kind == "bool" and text.lower() not in ("true", "false"):
        return f"{str(_truth(text)).lower()} to YAML; put it in quotes if it is a word"
    if kind in ("int", "float") and ":" in text:
        return "a number to base 60 to YAML"
    if kind == "int" and not _WHOLE.fullmatch(text):
        return "not a decimal number to YAML"
    return None


def _quoted(text: str) -> str:
    return f'"{printable(text)}"'
