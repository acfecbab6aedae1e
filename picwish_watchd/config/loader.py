"""From a file to a `Config`, or to all of its faults at once."""

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

#: keys that cannot be the same for all rules
_PER_RULE_KEYS = ("name", "inbox")
_SECTION_KEYS = ("api", "budget", "defaults", "http", "log", "notify", "rules")
#: sections of many entries
_LIST_SECTIONS = (("notify",), ("rules",))
#: Stand in for required keys that are missing or refused, while the rest of their section is judged.
_PLACEHOLDERS: Mapping[type[Section], Mapping[str, object]] = {
    Rule: {"name": "unnamed", "inbox": "/nowhere", "outbox": "/nowhere"},
    Burst: {"images": 1, "per": 1},
    Http: {"listen": "127.0.0.1:0"},
    **NOTIFIER_PLACEHOLDERS,
}


def load_config(path: Path, environ: Mapping[str, str]) -> Config:
    """The configuration in a file, wholly checked. Opens no other file and makes nothing.

    Relative paths start at the file's folder; ``~`` and ``${VAR}`` are taken from ``environ``. Raises `ConfigError`
    whose message has a line for each fault, ``FILE:LINE: KEY: found ...; allowed: ...``, sorted by line.
    """
    document = read_yaml(path)
    absolute = Path(os.path.abspath(path))
    reading = _ConfigReader(document, ResolveContext(absolute.parent, environ))
    config = reading.read_config(absolute)
    if reading.faults:
        faults = sorted(reading.faults, key=lambda fault: (fault.line, fault.key, fault.found))
        raise ConfigError("\n".join(f"{path}:{fault.line}: {fault}" for fault in faults))
    return config


class _ConfigReader:
    """One load. Every key is read, whatever is wrong with the others; ``faults`` gathers what was refused."""

    def __init__(self, document: YamlDocument, home: ResolveContext) -> None:
        self.faults = set(document.faults)
        self._document = document
        self._context = home
        self._rejected_keys: set[KeyPath] = set()
        self._defaulted_keys: set[KeyPath] = set()

    def read_config(self, path: Path) -> Config:
        """What the file says; where there are faults, the defaults stand in for what was refused."""
        top = dict(self._document.data)
        api = self._read_section(Api, self._require_mapping(top.pop("api", None), ("api",)) or {}, ("api",))
        log = self._read_section(Log, self._require_mapping(top.pop("log", None), ("log",)) or {}, ("log",))
        budget = self._read_budget(top.pop("budget", None))
        http = self._read_http(top.pop("http", None))
        rules = self._read_rules(top.pop("rules", None), self._read_defaults(top.pop("defaults", None)))
        notify = self._read_notifiers(top.pop("notify", None))
        general = self._read_section(General, top, ())
        found = [*find_conflicts(api, general.journal, rules), *find_http_conflicts(http)]
        for danger in (*found, *insecure_settings(notify), *find_secret_name_clashes(http, notify)):
            self._add_conflict(danger)
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
        """The section; if keys of it are refused, what it is without them, so that the rest can be judged."""
        errors = _schema_errors(kind, data, self._context)
        extra = _SECTION_KEYS if kind is General else ()
        for error in errors:
            self._add_schema_error(error, kind, where, sorted((*kind.model_fields, *extra)))
        stand_ins = _PLACEHOLDERS.get(kind, {})
        return kind.model_validate({**stand_ins, **_drop_invalid(data, errors)}, context=self._context)

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
        """A section whose keys are all commented out is as good as none."""
        if data is None:
            return {}
        if isinstance(data, dict):
            return data
        # The value is not quoted: a key of PicWish that slipped up a level would stand just here.
        found = "a list" if isinstance(data, list) else "a single value"
        self._reject(where, InvalidValueError("a mapping: indented lines of KEY: VALUE", found=found))
        return None

    def _read_defaults(self, data: object) -> dict[str, object]:
        """The defaults that can be used under a rule; what is wrong with the others is told once, here."""
        given = self._require_mapping(data, ("defaults",)) or {}
        for key in _PER_RULE_KEYS:
            if key in given:
                refused = InvalidValueError("under each rule only", found="a key that no two rules can share")
                self._reject(("defaults", key), refused)
        usable = _drop_keys(given, _PER_RULE_KEYS)
        errors = [error for error in _schema_errors(Rule, usable, self._context) if error["type"] != "missing"]
        for error in errors:
            self._add_schema_error(error, Rule, ("defaults",), sorted(_drop_keys(Rule.model_fields, _PER_RULE_KEYS)))
        return _drop_invalid(usable, errors)

    def _read_rules(self, data: object, defaults: dict[str, object]) -> dict[int, Rule]:
        """The rules that can be judged, by their place in the list."""
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
        # A default that was refused is not missing: it has been told where it stands.
        told = {at[1] for at in self._rejected_keys if at[0] == "defaults" and len(at) > 1}
        self._rejected_keys |= {(*where, key) for key in told if key not in given}
        return self._read_section(Rule, {**defaults, **given}, where)

    def _read_notifiers(self, data: object) -> dict[int, Notifier]:
        """The entries that can be judged, by their place in the list."""
        if data is not None and not isinstance(data, list):
            self._reject(("notify",), InvalidValueError('a list, "- to: ..."', found="something else"))
        found = {}
        for index, entry in enumerate(data if isinstance(data, list) else []):
            mapping = self._require_mapping(entry, ("notify", index))
            if mapping is None:
                continue
            way = str(mapping.get("to"))
            if way in NOTIFIER_TYPES:
                found[index] = self._read_section(NOTIFIER_TYPES[way], mapping, ("notify", index))
            else:
                self._reject(
                    ("notify", index, "to"),
                    InvalidValueError(", ".join(NOTIFIER_TYPES), meant=closest_match(way, list(NOTIFIER_TYPES))),
                )
        return found

    def _add_schema_error(self, error: ErrorDetails, kind: type[Section], where: KeyPath, known: list[str]) -> None:
        at = (*where, *error["loc"])
        if error["type"] != "missing" or at not in self._rejected_keys:
            self._reject(at, explain_schema_error(error, kind, known))

    def _reject(self, where: KeyPath, refused: InvalidValueError) -> None:
        self._rejected_keys.add(where[:3] if where[:1] in _LIST_SECTIONS else where[:2])
        self._record_fault(where, refused)

    def _add_conflict(self, danger: Conflict) -> None:
        """Not if one of its values was refused anyway: what stands there in its stead is nobody's wish."""
        if not self._rejected_keys.intersection(danger.key_paths):
            self._record_fault(danger.key_paths[0], InvalidValueError(danger.allowed, found=danger.found))

    def _record_fault(self, where: KeyPath, refused: InvalidValueError) -> None:
        if where in self._defaulted_keys:
            where = ("defaults", *where[2:])
        found = refused.found or self._document.spelling(where)
        self.faults.add(
            ConfigFault(self._document.line(where), format_key_path(where), found, refused.allowed, refused.suggestion)
        )

    def _collect_warnings(self, api: Api) -> list[str]:
        told = []
        if api.key is not None:
            text = "the key stands in the configuration itself; move it to a file that only the daemon reads (key_file)"
            told.append((("api", "key"), text))
        if is_insecure_url(api.base_url):
            told.append((("api", "base_url"), "http to another host: the key and the images travel unencrypted"))
        return [f"{self._document.file}:{self._document.line(at)}: {format_key_path(at)}: {text}" for at, text in told]


def _schema_errors(kind: type[Section], data: dict[str, object], home: ResolveContext) -> list[ErrorDetails]:
    try:
        kind.model_validate(data, context=home)
    except ValidationError as error:
        return error.errors(include_url=False, include_input=False)
    return []


def _drop_invalid(data: dict[str, object], errors: list[ErrorDetails]) -> dict[str, object]:
    return _drop_keys(data, tuple(str(error["loc"][0]) for error in errors))


def _drop_keys(data: Mapping[str, Value], keys: tuple[str, ...]) -> dict[str, Value]:
    return {key: value for key, value in data.items() if key not in keys}
