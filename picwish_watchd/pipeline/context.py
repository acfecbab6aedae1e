"""What every step works with."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from picwish_watchd.clock import Clock
from picwish_watchd.config.model import Config
from picwish_watchd.config.schema import Rule
from picwish_watchd.counters import Counters
from picwish_watchd.fs.mounts import AcceptedMount
from picwish_watchd.images.validation_process import ValidationProcess
from picwish_watchd.job import Job
from picwish_watchd.journal.writer import Journal
from picwish_watchd.outbox.spool import Spool
from picwish_watchd.picwish import PicwishClient
from picwish_watchd.pipeline.journal_outage import JournalOutage
from picwish_watchd.pricing import PRICES as PRICES
from picwish_watchd.runtime.heartbeat import Heartbeat
from picwish_watchd.runtime.keyed_executor import KeyedExecutor
from picwish_watchd.runtime.wakeup import Wakeup

# seconds
_IDLE_TIMEOUT = 5.0


@dataclass(slots=True)
class Wakeups:
    """One for each step that may have something to do."""

    intake: Wakeup = field(default_factory=Wakeup)
    submit: Wakeup = field(default_factory=Wakeup)
    collect: Wakeup = field(default_factory=Wakeup)
    deliver: Wakeup = field(default_factory=Wakeup)
    dispose: Wakeup = field(default_factory=Wakeup)


@dataclass(slots=True)
class StepContext:
    """The parts that the steps share. ``config`` is replaced as a whole when it is read again."""

    config: Config
    journal: Journal
    spool: Spool
    clock: Clock
    #: replaced when the configuration is read again
    client: PicwishClient
    executor: KeyedExecutor = field(default_factory=KeyedExecutor)
    validator: ValidationProcess = field(default_factory=ValidationProcess)
    wakeups: Wakeups = field(default_factory=Wakeups)
    counters: Counters = field(default_factory=Counters)
    #: nothing new is begun any more
    stopping: bool = False
    heartbeat: Heartbeat = field(init=False)
    journal_outage: JournalOutage = field(init=False)
    #: whatever lies at the job's source now is news
    rescan_source: Callable[[Job], None] = lambda _job: None

    def __post_init__(self) -> None:
        self.heartbeat = Heartbeat(self.clock)
        self.journal_outage = JournalOutage(self.journal)

    def close(self) -> None:
        """Lets go of threads and processes without waiting for one that hangs."""
        self.validator.close()
        self.executor.close()

    def rule_of(self, job: Job) -> Rule:
        """The rule of a job; for one that left the configuration, its last settings."""
        for rule in self.config.rules:
            if rule.name == job.rule:
                return rule
        settings = self.journal.rule_settings(job.rule)
        assert settings is not None, f"rule {job.rule} was never remembered"
        return Rule.from_json(settings)

    def accepted_mount(self, rule: str, folder: Path) -> AcceptedMount:
        """Return the mount that ``folder``, one of ``rule``'s, was last accepted on."""
        return AcceptedMount(rule, self.journal.folder_mount(folder))

    def wait_timeout(self, usual: float) -> float:
        """How long (seconds) a step may wait for its bell: longer than ``usual`` while no job is on its way.

        Then only a bell brings work: that of intake, or of the look at what other processes did, once a second.
        """
        return usual if self.journal.count_unfinished() else _IDLE_TIMEOUT

    def backoff_delay(self, tries: int) -> float:
        """The pause (seconds) after so many earlier failures: `retry_backoff`, doubled each time, at most 5 min."""
        return min(300.0, self.config.retry_backoff * 2.0 ** min(tries, 20))
