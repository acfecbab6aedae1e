"""The parts that the steps of the pipeline share."""

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
from picwish_watchd.runtime.heartbeat import Heartbeat
from picwish_watchd.runtime.keyed_executor import KeyedExecutor
from picwish_watchd.runtime.wakeup import Wakeup
from picwish_watchd.scheduling.backoff import backoff_delay

#: Seconds that a step waits for a wake-up while no job is unfinished.
_IDLE_TIMEOUT = 5.0


@dataclass(slots=True)
class Wakeups:
    """One wake-up for each step. It ends the step's wait early."""

    intake: Wakeup = field(default_factory=Wakeup)
    submit: Wakeup = field(default_factory=Wakeup)
    collect: Wakeup = field(default_factory=Wakeup)
    deliver: Wakeup = field(default_factory=Wakeup)
    dispose: Wakeup = field(default_factory=Wakeup)

    def notify_steps(self) -> None:
        """Wake all steps that take their work from the journal; intake takes its work from the inboxes."""
        for wakeup in (self.submit, self.collect, self.deliver, self.dispose):
            wakeup.notify()


@dataclass(slots=True)
class StepContext:
    """What every step needs. A reload replaces ``config`` and ``client`` as a whole, so read them at each use."""

    config: Config
    journal: Journal
    spool: Spool
    clock: Clock
    client: PicwishClient
    executor: KeyedExecutor = field(default_factory=KeyedExecutor)
    validator: ValidationProcess = field(default_factory=ValidationProcess)
    wakeups: Wakeups = field(default_factory=Wakeups)
    counters: Counters = field(default_factory=Counters)
    #: Whether the daemon shuts down. Steps start nothing new then.
    stopping: bool = False
    heartbeat: Heartbeat = field(init=False)
    journal_outage: JournalOutage = field(init=False)

    def __post_init__(self) -> None:
        self.heartbeat = Heartbeat(self.clock)
        self.journal_outage = JournalOutage(self.journal)

    def close(self) -> None:
        """Release threads and processes without waiting for one that hangs."""
        self.validator.close()
        self.executor.close()

    def rule_of(self, job: Job) -> Rule:
        """Return the rule of a job; for a rule that left the configuration, its last settings."""
        for rule in self.config.rules:
            if rule.name == job.rule:
                return rule
        settings = self.journal.rule_settings(job.rule)
        assert settings is not None, f"the settings of rule {job.rule} were never saved"
        return Rule.from_json(settings)

    def accepted_mount(self, rule: str, folder: Path) -> AcceptedMount:
        """Return the mount that ``folder``, one of ``rule``'s, was last accepted on."""
        return AcceptedMount(rule, self.journal.folder_mount(folder))

    def wait_timeout(self, usual: float) -> float:
        """Return how long (seconds) a step may wait for its wake-up: ``usual``, or longer while no job is unfinished.

        With no unfinished job, only a wake-up brings work: from intake, or from the monitor, which looks once a second
        for what other processes did.
        """
        return usual if self.journal.count_unfinished() else _IDLE_TIMEOUT

    def backoff_delay(self, failures: int) -> float:
        """Return the pause (seconds) after ``failures``: `retry_backoff`, doubled at each, at most 5 min."""
        return backoff_delay(self.config.retry_backoff, failures)
