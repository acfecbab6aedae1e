"""Whose turn it is: the highest priority first, equal ones in turn, and no rule waits for ever."""

from collections.abc import Callable, Sequence

from picwish_watchd.clock import Clock
from picwish_watchd.config.schema import Rule
from picwish_watchd.journal.queue_reader import QueueReader

_STARVATION_SECONDS = (
    # seconds in which none of a rule's images went although one waited: then one goes before all others
    600.0
)


class FairScheduler:
    """The order in which rules may send an image."""

    def __init__(self, journal: QueueReader, clock: Clock, rules: Callable[[], Sequence[Rule]]) -> None:
        """``rules``: those in force now; a reload may replace them."""
        self._journal, self._clock, self._rules = journal, clock, rules
        self._turn_count = 0
        # by rule: when its last turn was, in turns
        self._last_turns: dict[str, int] = {}
        self._started_at = clock.monotonic()
        # the same, in monotonic seconds
        self._served_at: dict[str, float] = {}
        self._boosted_rules: set[str] = (
            set()
            # rules that were let go before higher priorities, and ask for their slot next
        )

    def ordered_rules(self) -> list[Rule]:
        """All rules, the one whose turn it is first; not all of them have an image to send."""
        rules = self._rules()
        order = sorted(rules, key=lambda rule: (-rule.priority, self._last_turns.get(rule.name, 0)))
        starving = min((rule for rule in order if self._is_starving(rule)), key=self._last_served_at, default=None)
        return order if starving is None else [starving, *(rule for rule in order if rule is not starving)]

    def record_turn(self, rule: Rule) -> None:
        """An image of the rule is on its way."""
        if self._is_starving(rule):
            self._boosted_rules.add(rule.name)
        self._turn_count += 1
        self._last_turns[rule.name] = self._turn_count
        self._served_at[rule.name] = self._clock.monotonic()

    def priority_of(self, rule: Rule) -> int:
        """The priority with which the rule's next request is asked for: one that starved has the highest, once."""
        if rule.name not in self._boosted_rules:
            return rule.priority
        self._boosted_rules.discard(rule.name)
        return self._highest_priority()

    def _highest_priority(self) -> int:
        return max(rule.priority for rule in self._rules())

    def _last_served_at(self, rule: Rule) -> float:
        return self._served_at.get(rule.name, self._started_at)

    def _is_starving(self, rule: Rule) -> bool:
        """Whether the rule had no turn for so long, and an image that waits as long."""
        if (
            rule.priority == self._highest_priority()
            or self._clock.monotonic() - self._last_served_at(rule) < _STARVATION_SECONDS
        ):
            return False
        oldest = self._journal.next_ready_job(rule.name, self._clock.now())
        return oldest is not None and self._clock.now() - oldest.created_at >= _STARVATION_SECONDS
