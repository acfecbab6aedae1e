"""What `status` needs of a configuration. The running daemon tells it in its report, for to read and judge the file
anew takes longer than all else that `status` does."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self

# whoever asks for an outline wants to be spared the schema
if TYPE_CHECKING:
    from picwish_watchd.config.fingerprint import Fingerprint
    from picwish_watchd.config.model import Config


# no dataclass: to load those takes a fifth of the time that `status` has
class RuleSummary(NamedTuple):
    """Of a rule, as `picwish_watchd.config.schema.Rule` has it."""

    name: str
    inbox: str
    type: int
    sync: int


class ConfigSummary(NamedTuple):
    """Of the whole, as `picwish_watchd.config.model.Config` has it."""

    rules: tuple[RuleSummary, ...]
    #: requests a second
    qps: float
    max_pending: int | None
    #: credits
    per_day: int | None
    per_month: int | None

    @classmethod
    def from_config(cls, config: "Config") -> Self:
        """That of a configuration."""
        return cls(
            rules=tuple(RuleSummary(rule.name, str(rule.inbox), rule.type, rule.sync) for rule in config.rules),
            qps=config.api.qps,
            max_pending=config.api.max_pending,
            per_day=config.budget.per_day,
            per_month=config.budget.per_month,
        )


def summary_to_json(config: "Config") -> dict[str, object] | None:
    """The outline and what it is an outline of, as JSON knows it; None where the file alone does not say all."""
    if config.digest is None:
        return None
    outline = ConfigSummary.from_config(config)
    rules = [rule._asdict() for rule in outline.rules]
    return {"file": str(config.path), "digest": config.digest, **outline._asdict(), "rules": rules}


def summary_from_json(told: Mapping[str, Any] | None, seen: "Fingerprint") -> ConfigSummary | None:
    """The outline that was told by the same version, if it is that of the file as it was seen now."""
    if told is None or (told["file"], told["digest"]) != (str(seen.file), seen.digest):
        return None
    rules = tuple(RuleSummary(**rule) for rule in told["rules"])
    return ConfigSummary(rules, told["qps"], told["max_pending"], told["per_day"], told["per_month"])
