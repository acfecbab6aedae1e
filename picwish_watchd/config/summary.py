"""The few values of a configuration that `status` needs.

The running daemon puts them into its report, so that `status` need not load pydantic and read the file again, which
would take longer than all else that it does.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from picwish_watchd.config.fingerprint import Fingerprint


# Named tuples: importing dataclasses would take a fifth of the time of `status`.
class RuleSummary(NamedTuple):
    """The values of one rule, as in `picwish_watchd.config.schema.Rule`."""

    name: str
    inbox: str
    type: int
    sync: int


class ConfigSummary(NamedTuple):
    """The values of a configuration, as in `picwish_watchd.config.model.Config`, which makes it."""

    rules: tuple[RuleSummary, ...]
    #: Requests per second.
    qps: float
    max_pending: int | None
    #: Credits, or None for no limit.
    per_day: int | None
    #: Credits, or None for no limit.
    per_month: int | None


def summary_from_json(data: Mapping[str, Any] | None, fingerprint: Fingerprint) -> ConfigSummary | None:
    """Return the summary in ``data``, which `Config.summary_to_json` of the same version wrote.

    None if there is no data, or if it describes another file or other content than ``fingerprint``.
    """
    if data is None or (data["file"], data["digest"]) != (str(fingerprint.file), fingerprint.digest):
        return None
    rules = tuple(RuleSummary(**rule) for rule in data["rules"])
    return ConfigSummary(rules, data["qps"], data["max_pending"], data["per_day"], data["per_month"])
