"""What `status` needs of a configuration. The running daemon tells it in its report, for to read and judge the file
anew takes longer than all else that `status` does."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self

# whoever asks for an outline wants to be spared the schema
if TYPE_CHECKING:
    from picwish_watchd.config.fingerprint import Glance
    from picwish_watchd.config.model import Config


# no dataclass: to load those takes a fifth of the time that `status` has
class RuleOutline(NamedTuple):
    """Of a rule, as `picwish_watchd.config.schema.Rule` has it."""

    name: str
    inbox: str
    type: int
    sync: int


class Outline(NamedTuple):
    """Of the whole, as `picwish_watchd.config.model.Config` has it."""

    rules: tuple[RuleOutline, ...]
    #: requests a second
    qps: float
    max_pending: int | None
    #: credits
    per_day: int | None
    per_month: int | None

    @classmethod
    def of(cls, config: "Config") -> Self:
        """That of a configuration."""
        return cls(
            rules=tuple(RuleOutline(rule.name, str(rule.inbox), rule.type, rule.sync) for rule in config.rules),
            qps=config.api.qps,
            max_pending=config.api.max_pending,
            per_day=config.budget.per_day,
            per_month=config.budget.per_month,
        )


def told(config: "Config") -> dict[str, object] | None:
    """The outline and what it is an outline of, as JSON knows it; None where the file alone does not say all."""
    if config.digest is None:
        return None
    outline = Outline.of(config)
    rules = [rule._asdict() for rule in outline.rules]
    return {"file": str(config.path), "digest": config.digest, **outline._asdict(), "rules": rules}


def recalled(told: Mapping[str, Any] | None, seen: "Glance") -> Outline | None:
    """The outline that was told by the same version, if it is that of the file as it was seen now."""
    if told is None or (told["file"], told["digest"]) != (str(seen.file), seen.digest):
        return None
    rules = tuple(RuleOutline(**rule) for rule in told["rules"])
    return Outline(rules, told["qps"], told["max_pending"], told["per_day"], told["per_month"])
