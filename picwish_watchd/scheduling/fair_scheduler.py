"""Whose turn it is: the highest priority first, rules of equal priority in turn, and no rule waits for ever."""

from collections.abc import Callable, Sequence

from picwish_watchd.clock import Clock
from picwish_watchd.config.schema import Rule
from picwish_watchd.journal.queue_reader import QueueReader

# Seconds in which a rule had no turn although an image of it waited. Then one image of it goes before all others.
_STARVATION_SECONDS = 600.0


class FairScheduler:
    """The order in which rules may submit an image."""

    def __init__(self, journal: QueueReader, clock: Clock, rules: Callable[[], Sequence[Rule]]) -> None:
        """Read the rules in force from ``rules`` at each use, because a reload may replace them."""
        self._journal, self._clock, self._rules = journal, clock, rules
        self._turn_count = 0
        # By name of the rule: the number of its last turn.
        self._last_turns: dict[str, int] = {}
        self._started_at = clock.monotonic()
        # By name of the rule: the time of its last turn, in monotonic seconds.
        self._served_at: dict[str, float] = {}
        # Rules that had a turn before higher priorities. Their next permit is requested with the highest priority.
        self._boosted_rules: set[str] = set()

    def ordered_rules(self) -> list[Rule]:
        """Return all rules, the one whose turn it is first. A rule may have no image to submit."""
        rules = self._rules()
        order = sorted(rules, key=lambda rule: (-rule.priority, self._last_turns.get(rule.name, 0)))
        starving = min((rule for rule in order if self._is_starving(rule)), key=self._last_served_at, default=None)
        return order if starving is None else [starving, *(rule for rule in order if rule is not starving)]

    def record_turn(self, rule: Rule) -> None:
        """Record that an image of the rule is being submitted."""
        if self._is_starving(rule):
            self._boosted_rules.add(rule.name)
        self._turn_count += 1
        self._last_turns[rule.name] = self._turn_count
        self._served_at[rule.name] = self._clock.monotonic()

    def priority_of(self, rule: Rule) -> int:
        """Return the priority for the rule's next permit: the highest, once, for a rule that was starving."""
        if rule.name not in self._boosted_rules:
            return rule.priority
        self._boosted_rules.discard(rule.name)
        return self._highest_priority()

    def _highest_priority(self) -> int:
        return max(rule.priority for rule in self._rules())

    def _last_served_at(self, rule: Rule) -> float:
        return self._served_at.get(rule.name, self._started_at)

    def _is_starving(self, rule: Rule) -> bool:
        """Return whether the rule had no turn for `_STARVATION_SECONDS` and an image has been waiting for as long."""
        if (
            rule.priority == self._highest_priority()
            or self._clock.monotonic() - self._last_served_at(rule) < _STARVATION_SECONDS
        ):
            return False
        oldest = self._journal.next_ready_job(rule.name, self._clock.now())
        return oldest is not None and self._clock.now() - oldest.created_at >= _STARVATION_SECONDS
