"""Load a configuration file into a `Config`, or report all of its faults at once."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from picwish_watchd.config.cross_checks import (
    Conflict,
    find_conflicts,
    find_http_conflicts,
    find_secret_name_clashes,
    insecure_settings,
)
from picwish_watchd.config.error_messages import ConfigFault, KeyPath, format_key_path
from picwish_watchd.config.fields import Section
from picwish_watchd.config.model import Config
from picwish_watchd.config.notifiers import NOTIFIER_PLACEHOLDERS, NOTIFIER_TYPES, Notifier
from picwish_watchd.config.schema import Api, Budget, Burst, General, Http, Log, Rule
from picwish_watchd.config.schema_errors import explain_schema_error
from picwish_watchd.config.strings import ResolveContext, is_insecure_url
from picwish_watchd.config.units import InvalidValueError, closest_match
from picwish_watchd.config.yaml_document import YamlDocument, read_yaml
from picwish_watchd.errors import ConfigError

SectionT = TypeVar("SectionT", bound=Section)
Value = TypeVar("Value")

#: Keys that cannot be the same for all rules.
_PER_RULE_KEYS = ("name", "inbox")
_SECTION_KEYS = ("api", "budget", "defaults", "http", "log", "notify", "rules")
#: Sections that are lists.
_LIST_SECTIONS = (("notify",), ("rules",))
#: Values that replace required keys that are missing or refused, so that the rest of the section can be validated.
_PLACEHOLDERS: Mapping[type[Section], Mapping[str, object]] = {
    Rule: {"name": "unnamed", "inbox": "/nowhere", "outbox": "/nowhere"},
    Burst: {"images": 1, "per": 1},
    Http: {"listen": "127.0.0.1:0"},
    **NOTIFIER_PLACEHOLDERS,
}


def load_config(path: Path, environ: Mapping[str, str]) -> Config:
    """Load and check the configuration in a file. No other file is opened, and nothing is created.

    Relative paths start at the file's folder; ``~`` and ``${VAR}`` are taken from ``environ``. Raises `ConfigError`.
    Its message has one line for each fault, ``FILE:LINE: KEY: found ...; allowed: ...``, sorted by line.
    """
    document = read_yaml(path)
    absolute = Path(os.path.abspath(path))
    reader = _ConfigReader(document, ResolveContext(absolute.parent, environ))
    config = reader.read_config(absolute)
    if reader.faults:
        faults = sorted(reader.faults, key=lambda fault: (fault.line, fault.key, fault.found))
        raise ConfigError("\n".join(f"{path}:{fault.line}: {fault}" for fault in faults))
    return config


class _ConfigReader:
    """Reads one file. Each key is validated even if others are refused; ``faults`` has what was refused."""

    def __init__(self, document: YamlDocument, context: ResolveContext) -> None:
        self.faults = set(document.faults)
        self._document = document
        self._context = context
        self._rejected_keys: set[KeyPath] = set()
        self._defaulted_keys: set[KeyPath] = set()

    def read_config(self, path: Path) -> Config:
        """Return the configuration in the file; if there are faults, defaults replace the refused values."""
        top = dict(self._document.data)
        api = self._read_section(Api, self._require_mapping(top.pop("api", None), ("api",)) or {}, ("api",))
        log = self._read_section(Log, self._require_mapping(top.pop("log", None), ("log",)) or {}, ("log",))
        budget = self._read_budget(top.pop("budget", None))
        http = self._read_http(top.pop("http", None))
        rules = self._read_rules(top.pop("rules", None), self._read_defaults(top.pop("defaults", None)))
        notify = self._read_notifiers(top.pop("notify", None))
        general = self._read_section(General, top, ())
        conflicts = [*find_conflicts(api, general.journal, rules), *find_http_conflicts(http)]
        for conflict in (*conflicts, *insecure_settings(notify), *find_secret_name_clashes(http, notify)):
            self._add_conflict(conflict)
        return Config(
            api=api,
            journal=general.journal,
            charging=general.charging,
            budget=budget,
            min_free=general.min_free,
            max_attempts=general.max_attempts,
            retry_backoff=general.retry_backoff,
            keep=general.keep,
            rules=tuple(rules.values()),
            log=log,
            path=path,
            digest=self._document.digest,
            warnings=tuple(self._collect_warnings(api)),
            http=http,
            notify=tuple(notify.values()),
        )

    def _read_section(self, kind: type[SectionT], data: dict[str, object], where: KeyPath) -> SectionT:
        """Return the section; keys that are refused get their defaults, so that the rest can be validated."""
        errors = _schema_errors(kind, data, self._context)
        extra = _SECTION_KEYS if kind is General else ()
        for error in errors:
            self._add_schema_error(error, kind, where, sorted((*kind.model_fields, *extra)))
        placeholders = _PLACEHOLDERS.get(kind, {})
        return kind.model_validate({**placeholders, **_drop_invalid(data, errors)}, context=self._context)

    def _read_budget(self, data: object) -> Budget:
        given = dict(self._require_mapping(data, ("budget",)) or {})
        burst = self._require_mapping(given.pop("burst", None), ("budget", "burst"))
        budget = self._read_section(Budget, given, ("budget",))
        return (
            budget.model_copy(update={"burst": self._read_section(Burst, burst, ("budget", "burst"))})
            if burst
            else budget
        )

    def _read_http(self, data: object) -> Http | None:
        given = self._require_mapping(data, ("http",))
        return self._read_section(Http, given, ("http",)) if given else None

    def _require_mapping(self, data: object, where: KeyPath) -> dict[str, object] | None:
        """Return a section's mapping: an empty one if all its keys are commented out, None if it is not a mapping."""
        if data is None:
            return {}
        if isinstance(data, dict):
            return data
        # The value is not quoted: it may be the API key, one level too high.
        found = "a list" if isinstance(data, list) else "a single value"
        self._reject(where, InvalidValueError("a mapping: indented lines of KEY: VALUE", found=found))
        return None

    def _read_defaults(self, data: object) -> dict[str, object]:
        """Return the defaults that rules can use; faults of the others are reported here, and only once."""
        given = self._require_mapping(data, ("defaults",)) or {}
        for key in _PER_RULE_KEYS:
            if key in given:
                invalid = InvalidValueError("under each rule only", found="a key that no two rules can share")
                self._reject(("defaults", key), invalid)
        usable = _drop_keys(given, _PER_RULE_KEYS)
        errors = [error for error in _schema_errors(Rule, usable, self._context) if error["type"] != "missing"]
        for error in errors:
            self._add_schema_error(error, Rule, ("defaults",), sorted(_drop_keys(Rule.model_fields, _PER_RULE_KEYS)))
        return _drop_invalid(usable, errors)

    def _read_rules(self, data: object, defaults: dict[str, object]) -> dict[int, Rule]:
        """Return the rules that can be validated, by their index in the list."""
        if not isinstance(data, list) or not data:
            self._reject(("rules",), InvalidValueError('a list of at least one rule, "- name: ..."'))
            return {}
        rules = {}
        for index, entry in enumerate(data):
            mapping = self._require_mapping(entry, ("rules", index))
            if mapping is not None:
                rules[index] = self._read_rule(mapping, defaults, index)
        return rules

    def _read_rule(self, given: dict[str, object], defaults: dict[str, object], index: int) -> Rule:
        where: KeyPath = ("rules", index)
        self._defaulted_keys |= {(*where, key) for key in defaults if key not in given}
        # A default that was refused is not missing in the rule: it has been reported under `defaults`.
        rejected = {path[1] for path in self._rejected_keys if path[0] == "defaults" and len(path) > 1}
        self._rejected_keys |= {(*where, key) for key in rejected if key not in given}
        return self._read_section(Rule, {**defaults, **given}, where)

    def _read_notifiers(self, data: object) -> dict[int, Notifier]:
        """Return the entries that can be validated, by their index in the list."""
        if data is not None and not isinstance(data, list):
            self._reject(("notify",), InvalidValueError('a list, "- to: ..."', found="something else"))
        notifiers = {}
        for index, entry in enumerate(data if isinstance(data, list) else []):
            mapping = self._require_mapping(entry, ("notify", index))
            if mapping is None:
                continue
            kind = str(mapping.get("to"))
            if kind in NOTIFIER_TYPES:
                notifiers[index] = self._read_section(NOTIFIER_TYPES[kind], mapping, ("notify", index))
            else:
                self._reject(
                    ("notify", index, "to"),
                    InvalidValueError(", ".join(NOTIFIER_TYPES), meant=closest_match(kind, list(NOTIFIER_TYPES))),
                )
        return notifiers

    def _add_schema_error(self, error: ErrorDetails, kind: type[Section], where: KeyPath, known: list[str]) -> None:
        path = (*where, *error["loc"])
        if error["type"] != "missing" or path not in self._rejected_keys:
            self._reject(path, explain_schema_error(error, kind, known))

    def _reject(self, where: KeyPath, invalid: InvalidValueError) -> None:
        self._rejected_keys.add(where[:3] if where[:1] in _LIST_SECTIONS else where[:2])
        self._record_fault(where, invalid)

    def _add_conflict(self, conflict: Conflict) -> None:
        """Report a conflict, unless one of its values was refused: then a placeholder or a default was compared."""
        if not self._rejected_keys.intersection(conflict.key_paths):
            self._record_fault(conflict.key_paths[0], InvalidValueError(conflict.allowed, found=conflict.found))

    def _record_fault(self, where: KeyPath, invalid: InvalidValueError) -> None:
        if where in self._defaulted_keys:
            where = ("defaults", *where[2:])
        found = invalid.found or self._document.spelling(where)
        self.faults.add(
            ConfigFault(self._document.line(where), format_key_path(where), found, invalid.allowed, invalid.suggestion)
        )

    def _collect_warnings(self, api: Api) -> list[str]:
        warnings = []
        if api.key is not None:
            text = "the key is in the configuration itself; move it to a file that only the daemon can read (key_file)"
            warnings.append((("api", "key"), text))
        if is_insecure_url(api.base_url):
            warnings.append((("api", "base_url"), "http to another host: the key and the images are sent unencrypted"))
        return [
            f"{self._document.file}:{self._document.line(path)}: {format_key_path(path)}: {text}"
            for path, text in warnings
        ]


def _schema_errors(kind: type[Section], data: dict[str, object], context: ResolveContext) -> list[ErrorDetails]:
    try:
        kind.model_validate(data, context=context)
    except ValidationError as error:
        return error.errors(include_url=False, include_input=False)
    return []


def _drop_invalid(data: dict[str, object], errors: list[ErrorDetails]) -> dict[str, object]:
    return _drop_keys(data, tuple(str(error["loc"][0]) for error in errors))


def _drop_keys(data: Mapping[str, Value], keys: tuple[str, ...]) -> dict[str, Value]:
    return {key: value for key, value in data.items() if key not in keys}
