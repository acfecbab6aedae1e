"""The heartbeat: a loop is overdue when it exceeds its own promise, and only then."""

from picwish_watchd.runtime.heartbeat import Heartbeat
from tests.support.fake_clock import FakeClock


def test_a_loop_is_overdue_after_its_interval_and_grace_until_it_beats() -> None:
    clock = FakeClock()
    heartbeat = Heartbeat(clock)
    heartbeat.beat("submit", within=10)
    heartbeat.beat("gate", within=900)
    clock.advance(49)
    assert heartbeat.overdue(40) == []
    clock.advance(2)
    assert heartbeat.overdue(40) == ["submit"]
    heartbeat.beat("submit", within=10)
    assert heartbeat.overdue(40) == []


def test_the_wall_clock_makes_nothing_overdue() -> None:
    clock = FakeClock()
    heartbeat = Heartbeat(clock)
    heartbeat.beat("submit")
    clock.jump(7200)
    assert heartbeat.overdue(0) == []
