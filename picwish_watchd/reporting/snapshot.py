"""The state of configuration, journal, folders and daemon at one moment, and what blocks the images of a rule then."""

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

#: Number of queued images of a rule that are compared. A single image may wait for a reason of its own.
_BACKLOG_SAMPLE = 20

_CORRECT_IT = "correct that; it continues automatically"


@dataclass(frozen=True, slots=True)
class Blocker:
    """What an image waits for, and what a person can do about it; None if it continues automatically."""

    reason: str
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What `why` and `plan` judge by."""

    config: Config
    journal: JournalReader
    #: Unix seconds.
    now: float
    #: The running daemon; None if there is none.
    pid: int | None
    #: None also if the running daemon has not reported yet.
    daemon_report: DaemonReport | None
    #: Paths that do not answer, for example on a mount that hangs. Asking them hangs, too.
    unresponsive_paths: frozenset[Path]

    @classmethod
    def capture(cls, config: Config, journal: JournalReader, now: float, path: Path) -> Self:
        """Capture the state now. It covers ``path`` and the folders of the rules: which of them do not answer."""
        pid = DaemonLock(config.journal).owner_pid()
        folders = find_unresponsive_paths(
            [path, *(folder for rule in config.rules for folder in rule.folders().values())]
        )
        return cls(config, journal, now, pid, read_daemon_report(pid, journal.daemon_report()), folders)

    def is_responsive(self, path: Path) -> bool:
        """Return whether ``path`` can be looked at without a risk to hang."""
        return not is_inside_any(path, self.unresponsive_paths)

    def find_rule(self, name: str) -> Rule | None:
        """Return the rule of that name; None if the configuration has none."""
        return next((rule for rule in self.config.rules if rule.name == name), None)

    def why_unavailable(self, rule: Rule, folder: Path) -> str | None:
        """Return why ``folder``, one of ``rule``'s, cannot be used now; None if it is there, where it was last."""
        if not self.is_responsive(folder):
            return describe_hang()
        return why_unavailable(folder, AcceptedMount(rule.name, self.journal.folder_mount(folder)))

    def find_watch_blocker(self, rule: Rule) -> Blocker | None:
        """Return why the rule's inbox is not watched now; None if it is."""
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
        """Return why the rule, or this job of it, is not submitted: gate, budget, outbox, spool; None if it is."""
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
        """Why the gate is closed, so that results do not come either. A spent budget does not close it."""
        return None if self._gate is None or self._gate.is_budget else self._gate.message

    @property
    def _gate(self) -> GateReport | None:
        return None if self.daemon_report is None else self.daemon_report.blocked

    def find_flood_blocker(self, rule: Rule) -> Blocker | None:
        """Return what one more new image of the rule would wait for in a burst; None if it would not."""
        burst = self.config.budget.burst
        if burst is None:
            return None
        if self.journal.count_arrivals(rule.name, self.now - burst.per, burst.images) < burst.images:
            return None
        images = pluralize(burst.images, "image")
        held = f"{images} of {rule.name} came within {burst.per:g} s: budget.burst holds the rest"
        return Blocker(held, f"`picwish-watchd approve {rule.name}` once it is queued lets it go")

    def why_outbox_unusable(self, rule: Rule) -> str | None:
        """Return why nothing can be delivered to the rule's outbox; None if it can. Create nothing."""
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
        """Return the note that the oldest queued images of the rule, without this job, have in common; else None."""
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
