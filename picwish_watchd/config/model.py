"""The whole configuration as one frozen model."""

from dataclasses import dataclass, field
from pathlib import Path

from picwish_watchd.config.notifiers import Notifier
from picwish_watchd.config.schema import Api, Budget, Charging, Http, Log, Rule
from picwish_watchd.config.secret_files import SecretFile
from picwish_watchd.config.summary import ConfigSummary, RuleSummary


@dataclass(frozen=True, slots=True)
class Config:
    """One complete, checked configuration, which `picwish_watchd.config.loader.load_config` makes."""

    api: Api
    journal: Path
    charging: Charging
    budget: Budget
    #: Bytes.
    min_free: int
    max_attempts: int
    #: Seconds.
    retry_backoff: float
    #: Seconds that the history of a finished job is kept; None: for ever.
    keep: float | None
    rules: tuple[Rule, ...]
    log: Log
    #: Absolute path of the file that it was read from.
    path: Path | None
    #: Settings that work but should be changed, as sentences for a person.
    warnings: tuple[str, ...]
    http: Http | None = None
    #: The channels on which the daemon notifies people.
    notify: tuple[Notifier, ...] = ()
    #: `compute_digest` of the file's bytes; None if these do not decide all values, because of ``~`` or ``${VAR}``.
    digest: str | None = field(default=None, compare=False)

    def secret_files(self) -> list[SecretFile]:
        """Return the files of secrets that the configuration names, except that of the API key."""
        token = None if self.http is None else self.http.token_secret
        return [*([token] if token else []), *(file for notifier in self.notify for file in notifier.secret_files)]

    def summary(self) -> ConfigSummary:
        """Return the few values that `status` needs."""
        return ConfigSummary(
            rules=tuple(RuleSummary(rule.name, str(rule.inbox), rule.type, rule.sync) for rule in self.rules),
            qps=self.api.qps,
            max_pending=self.api.max_pending,
            per_day=self.budget.per_day,
            per_month=self.budget.per_month,
        )

    def summary_to_json(self) -> dict[str, object] | None:
        """Return the summary, with the file's path and digest, as JSON values for `summary_from_json`.

        None where the file alone does not decide the values, because it uses ``~`` or ``${VAR}``.
        """
        if self.digest is None:
            return None
        summary = self.summary()
        rules = [rule._asdict() for rule in summary.rules]
        return {"file": str(self.path), "digest": self.digest, **summary._asdict(), "rules": rules}
