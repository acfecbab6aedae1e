"""What is so while somebody asks `why`: the configuration, the journal, the moment, and what the daemon tells."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from picwish_watchd.config.model import Config
from picwish_watchd.config.schema import Rule
from picwish_watchd.fs.atomic_write import NoSpace
from picwish_watchd.fs.hang_guard import find_unresponsive_paths
from picwish_watchd.fs.mounts import AcceptedMount
from picwish_watchd.job import State
from picwish_watchd.journal.locks import DaemonLock
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.outbox.availability import describe_hang, is_inside_any, why_absent, why_full, why_unavailable
from picwish_watchd.outbox.spool import spool_folder
from picwish_watchd.pricing import PRICES
from picwish_watchd.reporting.daemon_report import DaemonReport, GateReport, read_daemon_report
from picwish_watchd.scheduling.credit_budget import CreditBudget
from picwish_watchd.wording import pluralize, printable_path

# queued images of a rule: one alone may wait for something of its own
_BACKLOG_SAMPLE = 20

_CORRECT_IT = "correct that; it continues automatically"


@dataclass(frozen=True, slots=True)
class Blocker:
    """Something that an image waits for, and what to do about it (None: it goes on by itself)."""

    reason: str
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """``now`` is Unix seconds; ``pid`` that of the running daemon, None without one, ``told`` what it last reported."""

    config: Config
    journal: JournalReader
    now: float
    pid: int | None
    daemon_report: DaemonReport | None
    #: paths that do not answer, as on a mount that hangs: whoever asks them hangs as well
    unresponsive_paths: frozenset[Path]

    @classmethod
    def capture(cls, config: Config, journal: JournalReader, now: float, asked: Path) -> Self:
        """The scene as it is now, around the path that is ``asked`` for."""
        pid = DaemonLock(config.journal).owner_pid()
        folders = find_unresponsive_paths(
            [asked, *(folder for rule in config.rules for folder in rule.folders().values())]
        )
        return cls(config, journal, now, pid, read_daemon_report(pid, journal.daemon_report()), folders)

    def is_responsive(self, path: Path) -> bool:
        """Whether it may be asked what lies at ``path``."""
        return not is_inside_any(path, self.unresponsive_paths)

    def find_rule(self, name: str) -> Rule | None:
        """The rule of that name, if the configuration still has it."""
        return next((rule for rule in self.config.rules if rule.name == name), None)

    def why_unavailable(self, rule: Rule, folder: Path) -> str | None:
        """Return why ``folder``, one of ``rule``'s, cannot be used now; None if it is there, where it was last."""
        if not self.is_responsive(folder):
            return describe_hang()
        return why_unavailable(folder, AcceptedMount(rule.name, self.journal.folder_mount(folder)))

    def find_watch_blocker(self, rule: Rule) -> Blocker | None:
        """Why nobody looks into the rule's inbox now."""
        if self.pid is None:
            return Blocker("the daemon does not run", "start `picwish-watchd run`")
        # A daemon that has just started has not reported yet.
        if self.daemon_report is None:
            return None
        inbox = self.daemon_report.inboxes.get(rule.name)
        if inbox is None:
            return Blocker(
                f"the running daemon does not know rule {rule.name} yet", "reload it: `systemctl reload picwish-watchd`"
            )
        if not inbox.watching and inbox.reason:
            return Blocker(f"the daemon cannot look into the inbox: {inbox.reason}", _CORRECT_IT)
        return None

    def find_submit_blocker(self, rule: Rule, job_id: int = 0) -> Blocker | None:
        """Why nothing of the rule, or this job of it, is bought now: the gate, the budget, the outbox, the spool."""
        gate = self._gate
        short = CreditBudget(self.config.budget, self.now).why_exceeded(self.journal, PRICES[rule.type])
        if gate is not None and (not gate.is_budget or short is None):
            return Blocker(f"nothing is submitted: {gate.message}", "see `picwish-watchd status`")
        if short is not None:
            return Blocker(short, "raise the budget, or wait")
        trouble = (
            self.why_outbox_unusable(rule) or self._describe_low_space(rule) or self._find_common_delay(rule, job_id)
        )
        return None if trouble is None else Blocker(trouble, _CORRECT_IT)

    @property
    def gate_message(self) -> str | None:
        """Why the gate is closed: then results do not come either. A budget that is reached closes none."""
        return None if self._gate is None or self._gate.is_budget else self._gate.message

    @property
    def _gate(self) -> GateReport | None:
        return None if self.daemon_report is None else self.daemon_report.blocked

    def find_flood_blocker(self, rule: Rule) -> Blocker | None:
        """Whether one more new image of the rule would wait for a person."""
        burst = self.config.budget.burst
        if burst is None:
            return None
        if self.journal.count_arrivals(rule.name, self.now - burst.per, burst.images) < burst.images:
            return None
        images = pluralize(burst.images, "image")
        held = f"{images} of {rule.name} came within {burst.per:g} s: budget.burst holds the rest"
        return Blocker(held, f"`picwish-watchd approve {rule.name}` once it is queued lets it go")

    def why_outbox_unusable(self, rule: Rule) -> str | None:
        """Why nothing can be put into the rule's outbox; nothing is made by looking."""
        outbox = rule.outbox
        if self.is_responsive(outbox):
            accepted = AcceptedMount(rule.name, self.journal.folder_mount(outbox))
            away = why_absent(outbox, accepted, seen=self.journal.is_known_folder(outbox))
        else:
            away = describe_hang()
        if away is None:
            return None
        return f"the outbox {printable_path(outbox)} cannot be used: {away}"

    def _find_common_delay(self, rule: Rule, job_id: int) -> str | None:
        """What the oldest queued images of the rule, other than this job, all tell to wait for: so do the others."""
        oldest = self.journal.list_backlog(State.QUEUED, rule.name, _BACKLOG_SAMPLE, excluding=job_id)
        notes = {job.note if (job.not_before or 0) > self.now else None for job in oldest}
        return notes.pop() if len(oldest) > 1 and len(notes) == 1 else None

    def _describe_low_space(self, rule: Rule) -> str | None:
        least = self.config.min_free
        for folder, what in ((rule.outbox, "outbox"), (spool_folder(self.config.journal), "spool")):
            # A folder that is not made yet, or is closed to the user of this command, is no reason to wait.
            if self.is_responsive(folder) and isinstance(problem := why_full(folder, least), NoSpace):
                return f"the {what} {printable_path(folder)} cannot be used: {problem.reason}"
        return None
