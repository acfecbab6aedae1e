"""Read a YAML file into plain values, with the line and the spelling of each. No other module reads YAML.

In YAML 1.1 ``12:30`` is 750, ``010`` is 8 and ``0644`` is 420. Here only decimal numbers become numbers; other
spellings stay text, and the validator of the key decides.
"""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from picwish_watchd.config.error_messages import ConfigFault, KeyPath, format_key_path, render_excerpt
from picwish_watchd.config.fingerprint import compute_digest
from picwish_watchd.errors import ConfigError

#: Bytes. Two hundred rules with every key take a fifth of it.
MAX_FILE_SIZE = 2**20
#: Values in the file, after aliases are followed.
MAX_VALUES = 100_000
#: Levels. The schema has four.
MAX_NESTING = 20

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG_PREFIX = "tag:yaml.org,2002:"
_STANDARD_TYPES = ("map", "seq", "null", "bool", "int", "float", "str", "timestamp", "value", "merge")
_STANDARD_TAGS = frozenset(_TAG_PREFIX + kind for kind in _STANDARD_TYPES)
#: Characters that a YAML file must not have (YAML 1.1, 5.1).
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_DECIMAL_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9_]{0,30})", re.ASCII)
_DECIMAL_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_SCIENTIFIC = re.compile(r"[-+]?[0-9.]+[eE][-+]?[0-9]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """The line of a value, and how it is written there."""

    line: int
    spelling: str


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """The content of a file: dicts with text keys, lists, text, int, float, bool and None."""

    file: Path
    data: dict[str, object]
    source_locations: Mapping[KeyPath, SourceLocation]
    #: Keys that occur twice, and tags.
    faults: tuple[ConfigFault, ...]
    #: `compute_digest` of the file's bytes; None if these do not decide all values, because of ``~`` or ``${VAR}``.
    digest: str | None

    def line(self, where: KeyPath) -> int:
        """Return the line of a key, or of the nearest section around it if it is not in the file."""
        while where and where not in self.source_locations:
            where = where[:-1]
        return self.source_locations[where].line if where else 1

    def spelling(self, where: KeyPath) -> str:
        """Return how a value is written, shortened to one line for a message; "nothing" if it is not in the file."""
        return self.source_locations[where].spelling if where in self.source_locations else "nothing"


def read_yaml(file: Path) -> YamlDocument:
    """Read a file that has one YAML mapping.

    Raises `ConfigError`, which names the file, if it cannot be read, is not UTF-8, not YAML or not a mapping, or if it
    exceeds `MAX_FILE_SIZE`, `MAX_VALUES` or `MAX_NESTING`.
    """
    content = _read_bytes(file)
    text = _decode(file, content)
    try:
        _check_depth(file, text)
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise ConfigError(_describe_syntax_error(file, text, error)) from None
    if node is None:
        raise ConfigError(f"{file}: is empty; a configuration has at least the section rules:")
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(
            f"{file}:{_line_number(node)}: found {_render_node(node)} at the top; allowed: keys such as api: and rules:"
        )
    return _NodeConverter(file).convert(node, compute_digest(content))


def _read_bytes(file: Path) -> bytes:
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):
            what = "a folder" if os.path.isdir(file) else "not a regular file"
            raise ConfigError(f"{file}: is {what}; the configuration has to be a text file")
        with open(file, "rb") as stream:
            content = stream.read(MAX_FILE_SIZE + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{file}: cannot be read: {reason}") from None
    if len(content) > MAX_FILE_SIZE:
        raise ConfigError(
            f"{file}: is larger than {MAX_FILE_SIZE} bytes; name another file as the configuration, or shorten it"
        )
    return content


def _decode(file: Path, content: bytes) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file}:{line}: is not text in UTF-8; save it in that encoding") from None
    if match := _UNPRINTABLE.search(text):
        line = text.count("\n", 0, match.start()) + 1
        raise ConfigError(f"{file}:{line}: found the control character {match[0]!r}; allowed: text")
    return text


def _check_depth(file: Path, text: str) -> None:
    # Checked on the stream of events, as the composer is recursive.
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_NESTING:
            mark = event.start_mark
            raise _depth_error(file, mark.line + 1 if mark else 1)


def _depth_error(file: Path, line: int) -> ConfigError:
    return ConfigError(f"{file}:{line}: is nested deeper than {MAX_NESTING} levels; keys are at most four levels deep")


def _describe_syntax_error(file: Path, text: str, error: yaml.YAMLError) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return f"{file}: is not YAML: {render_excerpt(str(error))}"
    mark = error.problem_mark
    # The limit of libyaml, which its look-ahead reaches before `_check_depth` does.
    if "nesting depth" in str(error.problem):
        return _depth_error(file, mark.line + 1).message
    context = f" ({error.context})" if error.context else ""
    lines = text.split("\n")
    hint = "; indent with spaces, not with tabs" if mark.line < len(lines) and "\t" in lines[mark.line] else ""
    return f"{file}:{mark.line + 1}: column {mark.column + 1}: is not YAML: {error.problem}{context}{hint}"


class _NodeConverter:
    """Converts the nodes of one file to values, and counts them, as aliases of aliases could become too many."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._source_locations: dict[KeyPath, SourceLocation] = {}
        self._faults: list[ConfigFault] = []
        self._visited_count = 0
        self._is_self_contained = True

    def convert(self, root: yaml.MappingNode, digest: str) -> YamlDocument:
        """Convert the top node; the document gets ``digest`` if nothing in it depends on the environment."""
        data = self._convert_mapping(root, ())
        return YamlDocument(
            self._file, data, self._source_locations, tuple(self._faults), digest if self._is_self_contained else None
        )

    def _convert_value(self, node: yaml.Node, where: KeyPath, line: int) -> object:
        self._count_node(line)
        if len(where) > MAX_NESTING:
            raise _depth_error(self._file, line)
        self._source_locations[where] = SourceLocation(line, _render_node(node))
        if node.tag not in _STANDARD_TAGS:
            self._faults.append(
                ConfigFault(line, format_key_path(where), f"the tag {_quote(node.tag)}", "values without tags")
            )
        if isinstance(node, yaml.MappingNode):
            return self._convert_mapping(node, where)
        if isinstance(node, yaml.SequenceNode):
            return [self._convert_value(item, (*where, i), _line_number(item)) for i, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        self._is_self_contained &= not node.value.startswith("~") and "${" not in node.value
        return _convert_scalar(node)

    def _count_node(self, line: int) -> None:
        self._visited_count += 1
        if self._visited_count > MAX_VALUES:
            raise ConfigError(f"{self._file}:{line}: has more than {MAX_VALUES} values once its aliases are followed")

    def _convert_mapping(self, node: yaml.MappingNode, where: KeyPath) -> dict[str, object]:
        values: dict[str, object] = {}
        for key, line, child in self._iter_pairs(node, where, 0):
            values[key] = self._convert_value(child, (*where, key), line)
        return values

    def _iter_pairs(self, node: yaml.MappingNode, where: KeyPath, depth: int) -> Iterator[tuple[str, int, yaml.Node]]:
        """Yield (key, line, value) of a mapping: first those that ``<<`` merges, so that later ones replace them."""
        if depth > MAX_NESTING:
            raise _depth_error(self._file, _line_number(node))
        line_by_key: dict[str, int] = {}
        own: list[tuple[str, int, yaml.Node]] = []
        for key_node, child in node.value:
            key, line = _render_key(key_node), _line_number(key_node)
            if key in line_by_key:
                found = f"a second time (the first is on line {line_by_key[key]})"
                self._faults.append(ConfigFault(line, format_key_path((*where, key)), found, "each key once"))
                continue
            line_by_key[key] = line
            if key_node.tag == _TAG_PREFIX + "merge":
                yield from self._iter_merged(child, where, depth)
            else:
                own.append((key, line, child))
        yield from own

    def _iter_merged(self, node: yaml.Node, where: KeyPath, depth: int) -> Iterator[tuple[str, int, yaml.Node]]:
        # In reverse, as the earlier of several mappings has precedence (YAML 1.1, merge key).
        mappings = reversed(node.value) if isinstance(node, yaml.SequenceNode) else [node]
        for mapping in mappings:
            self._count_node(_line_number(mapping))
            if isinstance(mapping, yaml.MappingNode):
                yield from self._iter_pairs(mapping, where, depth + 1)
                continue
            allowed = "a mapping, or a list of mappings, such as *base"
            self._faults.append(
                ConfigFault(_line_number(mapping), format_key_path((*where, "<<")), _render_node(mapping), allowed)
            )


def _convert_scalar(node: yaml.ScalarNode) -> object:
    """Return None, a bool, an int or a float if YAML and the spelling agree on it, else the text as written."""
    kind, text = node.tag.removeprefix(_TAG_PREFIX), node.value
    if kind == "null":
        return None
    if kind == "bool" and (truth := _parse_bool(text)) is not None:
        return truth
    if kind == "int" and _DECIMAL_INTEGER.fullmatch(text):
        return int(text.replace("_", ""))
    if kind == "float" and _DECIMAL_FLOAT.fullmatch(text) and len(text) < 100:
        return float(text.replace("_", ""))
    return text


def _parse_bool(text: str) -> bool | None:
    if text.lower() in ("true", "yes", "on"):
        return True
    return False if text.lower() in ("false", "no", "off") else None


def _line_number(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _render_key(node: yaml.Node) -> str:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else _render_node(node)


def _render_node(node: yaml.Node) -> str:
    """Return how a node is written, and what YAML makes of it where that is a surprise."""
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list" if node.value else "an empty list"
    # The style of plain text is "" in libyaml and None in PyYAML.
    plain = isinstance(node, yaml.ScalarNode) and not node.style
    if not plain or node.tag == _TAG_PREFIX + "str":
        is_scientific = plain and _SCIENTIFIC.fullmatch(node.value)
        return _quote(node.value) + (" (text to YAML; write the number out)" if is_scientific else "")
    if not node.value:
        return "nothing"
    coercion = _describe_coercion(node.tag.removeprefix(_TAG_PREFIX), node.value)
    return render_excerpt(node.value) + (f" ({coercion})" if coercion else "")


def _describe_coercion(kind: str, text: str) -> str | None:
    if kind == "null":
        return "nothing to YAML; put it in quotes"
    if kind == "bool" and text.lower() not in ("true", "false"):
        return f"{str(_parse_bool(text)).lower()} to YAML; put it in quotes if it is a word"
    if kind in ("int", "float") and ":" in text:
        return "a number to base 60 to YAML"
    if kind == "int" and not _DECIMAL_INTEGER.fullmatch(text):
        return "not a decimal number to YAML"
    return None


def _quote(text: str) -> str:
    return f'"{render_excerpt(text)}"'
