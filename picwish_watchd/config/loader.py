"""From a file to a `Config`, or to all of its faults at once."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from picwish_watchd.config.cross_checks import Danger, dangers, http_dangers, indiscretions, namesakes
from picwish_watchd.config.error_messages import Fault, Where, refusal, spell
from picwish_watchd.config.fields import Section
from picwish_watchd.config.model import Config
from picwish_watchd.config.notifiers import KINDS, STAND_INS, Notifier
from picwish_watchd.config.schema import Api, Budget, Burst, General, Http, Log, Rule
from picwish_watchd.config.strings import Home, is_plain_http_to_elsewhere
from picwish_watchd.config.units import RefusedError, closest
from picwish_watchd.config.yaml_document import Document, read
from picwish_watchd.errors import ConfigError

SectionT = TypeVar("SectionT", bound=Section)
Value = TypeVar("Value")

#: keys that cannot be the same for all rules
_PER_RULE = ("name", "inbox")
_SECTIONS = ("api", "budget", "defaults", "http", "log", "notify", "rules")
#: sections of many entries
_LISTS = (("notify",), ("rules",))
#: Stand in for required keys that are missing or refused, while the rest of their section is judged.
_STAND_INS: Mapping[type[Section], Mapping[str, object]] = {
    Rule: {"name": "unnamed", "inbox": "/nowhere", "outbox": "/nowhere"},
    Burst: {"images": 1, "per": 1},
    Http: {"listen": "127.0.0.1:0"},
    **STAND_INS,
}


def load(path: Path, environ: Mapping[str, str]) -> Config:
    """The configuration in a file, wholly checked. Opens no other file and makes nothing.

    Relative paths start at the file's folder; ``~`` and ``${VAR}`` are taken from ``environ``. Raises `ConfigError`
    whose message has a line for each fault, ``FILE:LINE: KEY: found ...; allowed: ...``, sorted by line.
    """
    document = read(path)
    absolute = Path(os.path.abspath(path))
    reading = _Reading(document, Home(absolute.parent, environ))
    config = reading.config(absolute)
    if reading.faults:
        faults = sorted(reading.faults, key=lambda fault: (fault.line, fault.key, fault.found))
        raise ConfigError("\n".join(f"{path}:{fault.line}: {fault}" for fault in faults))
    return config


class _Reading:
    """One load. Every key is read, whatever is wrong with the others; ``faults`` gathers what was refused."""

    def __init__(self, document: Document, home: Home) -> None:
        self.faults = set(document.faults)
        self._document = document
        self._home = home
        self._refused: set[Where] = set()
        self._from_defaults: set[Where] = set()

    def config(self, path: Path) -> Config:
        """What the file says; where there are faults, the defaults stand in for what was refused."""
        top = dict(self._document.data)
        api = self._section(Api, self._mapping(top.pop("api", None), ("api",)) or {}, ("api",))
        log = self._section(Log, self._mapping(top.pop("log", None), ("log",)) or {}, ("log",))
        budget = self._budget(top.pop("budget", None))
        http = self._http(top.pop("http", None))
        rules = self._rules(top.pop("rules", None), self._defaults(top.pop("defaults", None)))
        notify = self._notify(top.pop("notify", None))
        general = self._section(General, top, ())
        found = [*dangers(api, general.journal, rules), *http_dangers(http)]
        for danger in (*found, *indiscretions(notify), *namesakes(http, notify)):
            self._add_danger(danger)
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
            warnings=tuple(self._warnings(api)),
            http=http,
            notify=tuple(notify.values()),
        )

    def _section(self, kind: type[SectionT], data: dict[str, object], where: Where) -> SectionT:
        """The section; if keys of it are refused, what it is without them, so that the rest can be judged."""
        errors = _errors(kind, data, self._home)
        extra = _SECTIONS if kind is General else ()
        for error in errors:
            self._add_error(error, kind, where, sorted((*kind.model_fields, *extra)))
        stand_ins = _STAND_INS.get(kind, {})
        return kind.model_validate({**stand_ins, **_without(data, errors)}, context=self._home)

    def _budget(self, data: object) -> Budget:
        given = dict(self._mapping(data, ("budget",)) or {})
        burst = self._mapping(given.pop("burst", None), ("budget", "burst"))
        budget = self._section(Budget, given, ("budget",))
        return (
            budget.model_copy(update={"burst": self._section(Burst, burst, ("budget", "burst"))}) if burst else budget
        )

    def _http(self, data: object) -> Http | None:
        given = self._mapping(data, ("http",))
        return self._section(Http, given, ("http",)) if given else None

    def _mapping(self, data: object, where: Where) -> dict[str, object] | None:
        """A section whose keys are all commented out is as good as none."""
        if data is None:
            return {}
        if isinstance(data, dict):
            return data
        # The value is not quoted: a key of PicWish that slipped up a level would stand just here.
        found = "a list" if isinstance(data, list) else "a single value"
        self._add(where, RefusedError("a mapping: indented lines of KEY: VALUE", found=found))
        return None

    def _defaults(self, data: object) -> dict[str, object]:
        """The defaults that can be used under a rule; what is wrong with the others is told once, here."""
        given = self._mapping(data, ("defaults",)) or {}
        for key in _PER_RULE:
            if key in given:
                refused = RefusedError("under each rule only", found="a key that no two rules can share")
                self._add(("defaults", key), refused)
        usable = _except(given, _PER_RULE)
        errors = [error for error in _errors(Rule, usable, self._home) if error["type"] != "missing"]
        for error in errors:
            self._add_error(error, Rule, ("defaults",), sorted(_except(Rule.model_fields, _PER_RULE)))
        return _without(usable, errors)

    def _rules(self, data: object, defaults: dict[str, object]) -> dict[int, Rule]:
        """The rules that can be judged, by their place in the list."""
        if not isinstance(data, list) or not data:
            self._add(("rules",), RefusedError('a list of at least one rule, "- name: ..."'))
            return {}
        rules = {}
        for index, entry in enumerate(data):
            mapping = self._mapping(entry, ("rules", index))
            if mapping is not None:
                rules[index] = self._rule(mapping, defaults, index)
        return rules

    def _rule(self, given: dict[str, object], defaults: dict[str, object], index: int) -> Rule:
        where: Where = ("rules", index)
        self._from_defaults |= {(*where, key) for key in defaults if key not in given}
        # A default that was refused is not missing: it has been told where it stands.
        told = {at[1] for at in self._refused if at[0] == "defaults" and len(at) > 1}
        self._refused |= {(*where, key) for key in told if key not in given}
        return self._section(Rule, {**defaults, **given}, where)

    def _notify(self, data: object) -> dict[int, Notifier]:
        """The entries that can be judged, by their place in the list."""
        if data is not None and not isinstance(data, list):
            self._add(("notify",), RefusedError('a list, "- to: ..."', found="something else"))
        found = {}
        for index, entry in enumerate(data if isinstance(data, list) else []):
            mapping = self._mapping(entry, ("notify", index))
            if mapping is None:
                continue
            way = str(mapping.get("to"))
            if way in KINDS:
                found[index] = self._section(KINDS[way], mapping, ("notify", index))
            else:
                self._add(("notify", index, "to"), RefusedError(", ".join(KINDS), meant=closest(way, list(KINDS))))
        return found

    def _add_error(self, error: ErrorDetails, kind: type[Section], where: Where, known: list[str]) -> None:
        at = (*where, *error["loc"])
        if error["type"] != "missing" or at not in self._refused:
            self._add(at, refusal(error, kind, known))

    def _add(self, where: Where, refused: RefusedError) -> None:
        self._refused.add(where[:3] if where[:1] in _LISTS else where[:2])
        self._tell(where, refused)

    def _add_danger(self, danger: Danger) -> None:
        """Not if one of its values was refused anyway: what stands there in its stead is nobody's wish."""
        if not self._refused.intersection(danger.needs):
            self._tell(danger.needs[0], RefusedError(danger.allowed, found=danger.found))

    def _tell(self, where: Where, refused: RefusedError) -> None:
        if where in self._from_defaults:
            where = ("defaults", *where[2:])
        found = refused.found or self._document.spelling(where)
        self.faults.add(Fault(self._document.line(where), spell(where), found, refused.allowed, refused.meant))

    def _warnings(self, api: Api) -> list[str]:
        told = []
        if api.key is not None:
            text = "the key stands in the configuration itself; move it to a file that only the daemon reads (key_file)"
            told.append((("api", "key"), text))
        if is_plain_http_to_elsewhere(api.base_url):
            told.append((("api", "base_url"), "http to another host: the key and the images travel unencrypted"))
        return [f"{self._document.file}:{self._document.line(at)}: {spell(at)}: {text}" for at, text in told]


def _errors(kind: type[Section], data: dict[str, object], home: Home) -> list[ErrorDetails]:
    try:
        kind.model_validate(data, context=home)
    except ValidationError as error:
        return error.errors(include_url=False, include_input=False)
    return []


def _without(data: dict[str, object], errors: list[ErrorDetails]) -> dict[str, object]:
    return _except(data, tuple(str(error["loc"][0]) for error in errors))


def _except(data: Mapping[str, Value], keys: tuple[str, ...]) -> dict[str, Value]:
    return {key: value for key, value in data.items() if key not in keys}
