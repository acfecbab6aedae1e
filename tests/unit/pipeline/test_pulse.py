"""The pulse: what has not turned by its own word is late, and nothing else is."""

from picwish_watchd.runtime.heartbeat import Pulse
from tests.support.clock import FakeClock


def test_a_loop_is_late_once_its_own_word_and_the_grace_are_over_and_no_more_when_it_turns() -> None:
    clock = FakeClock()
    pulse = Pulse(clock)
    pulse.beat("submit", within=10)
    pulse.beat("gate", within=900)
    clock.advance(49)
    assert pulse.late(40) == []
    clock.advance(2)
    assert pulse.late(40) == ["submit"]
    pulse.beat("submit", within=10)
    assert pulse.late(40) == []


def test_the_wall_clock_makes_nothing_late() -> None:
    clock = FakeClock()
    pulse = Pulse(clock)
    pulse.beat("submit")
    clock.jump(7200)
    assert pulse.late(0) == []
