"""What every step works with."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from picwish_watchd.clock import Clock
from picwish_watchd.config.model import Config
from picwish_watchd.config.schema import Rule
from picwish_watchd.counters import Tally
from picwish_watchd.images.validation_process import Inspector
from picwish_watchd.job import Job
from picwish_watchd.journal.writer import Journal
from picwish_watchd.outbox.spool import Spool
from picwish_watchd.pipeline.journal_outage import Waits
from picwish_watchd.pricing import PRICES as PRICES
from picwish_watchd.runtime.heartbeat import Pulse
from picwish_watchd.runtime.keyed_executor import Lanes
from picwish_watchd.runtime.wakeup import Bell

if TYPE_CHECKING:  # commands that only look need no HTTP
    from picwish_watchd.picwish import PicwishClient

_REST = 5.0  # seconds


@dataclass(slots=True)
class Bells:
    """One for each step that may have something to do."""

    intake: Bell = field(default_factory=Bell)
    submit: Bell = field(default_factory=Bell)
    collect: Bell = field(default_factory=Bell)
    deliver: Bell = field(default_factory=Bell)
    dispose: Bell = field(default_factory=Bell)


@dataclass(slots=True)
class Context:
    """The parts that the steps share. ``config`` is replaced as a whole when it is read again."""

    config: Config
    journal: Journal
    spool: Spool
    clock: Clock
    client: "PicwishClient"  #: replaced when the configuration is read again
    lanes: Lanes = field(default_factory=Lanes)
    inspector: Inspector = field(default_factory=Inspector)
    bells: Bells = field(default_factory=Bells)
    tally: Tally = field(default_factory=Tally)
    stopping: bool = False  #: nothing new is begun any more
    pulse: Pulse = field(init=False)
    waits: Waits = field(init=False)
    look_again: Callable[[Job], None] = lambda _job: None  #: whatever lies at the job's source now is news

    def __post_init__(self) -> None:
        self.pulse = Pulse(self.clock)
        self.waits = Waits(self.journal)

    def close(self) -> None:
        """Lets go of threads and processes without waiting for one that hangs."""
        self.inspector.close()
        self.lanes.close()

    def rule_of(self, job: Job) -> Rule:
        """The rule of a job; for one that left the configuration, its last settings."""
        for rule in self.config.rules:
            if rule.name == job.rule:
                return rule
        settings = self.journal.settings_of(job.rule)
        assert settings is not None, f"rule {job.rule} was never remembered"
        return Rule.from_json(settings)

    def patience(self, usual: float) -> float:
        """How long (seconds) a step may wait for its bell: longer than ``usual`` while no job is on its way.

        Then only a bell brings work: that of intake, or of the look at what other processes did, once a second.
        """
        return usual if self.journal.unfinished() else _REST

    def pause_after(self, tries: int) -> float:
        """The pause (seconds) after so many earlier failures: `retry_backoff`, doubled each time, at most 5 min."""
        return min(300.0, self.config.retry_backoff * 2.0 ** min(tries, 20))
