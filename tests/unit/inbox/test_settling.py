"""Settling: stability is measured by observation, and no candidate is lost."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from picwish_watchd.inbox.settling import ReadyFile, SettleTracker
from picwish_watchd.job import Stamp

A, B = "a.jpg", "scans/b.jpg"
ONE, TWO = Stamp(1, 10, 100), Stamp(1, 20, 200)


def test_a_file_is_due_once_it_has_stood_still() -> None:
    settling = SettleTracker(2, 600)
    assert settling.next_ready_at() is None
    assert settling.record_sighting(A, ONE, 10)
    assert settling.next_ready_at() == 12
    assert settling.pop_ready(11.9) == []
    assert settling.pop_ready(12) == [ReadyFile(A, ONE, decode=False)]
    assert settling.pop_ready(99) == []
    assert settling.next_ready_at() is None
    assert A in settling


def test_a_change_restarts_the_wait_and_the_same_stamp_does_not() -> None:
    settling = SettleTracker(2, 600)
    settling.record_sighting(A, ONE, 10)
    assert not settling.record_sighting(A, ONE, 11)
    assert settling.record_sighting(A, TWO, 11.5)
    assert settling.pop_ready(13) == []
    assert settling.pop_ready(13.5) == [ReadyFile(A, TWO, decode=False)]


def test_a_file_that_changed_during_validation_becomes_due_again() -> None:
    settling = SettleTracker(2, 600)
    settling.record_sighting(A, ONE, 0)
    settling.pop_ready(2)
    settling.record_sighting(A, TWO, 2.5)
    assert settling.next_ready_at() == 4.5


def test_checks_of_an_unfinished_file_back_off_and_end_at_the_timeout() -> None:
    settling = SettleTracker(2, 100)
    settling.record_sighting(A, ONE, 0)
    looks: list[tuple[float, bool]] = []
    now = 0.0
    while len(looks) < 9:
        now = settling.next_ready_at() or 0.0
        [due] = settling.pop_ready(now)
        looks.append((now, due.decode))
        settling.postpone(A, now)
    assert [at for at, _ in looks] == [2, 4, 8, 16, 32, 64, 100, 160, 220]
    assert [decode for _, decode in looks] == [False] * 6 + [True] * 3


def test_the_timeout_counts_from_the_last_change() -> None:
    settling = SettleTracker(2, 10)
    settling.record_sighting(A, ONE, 0)
    settling.record_sighting(A, TWO, 9)
    assert settling.pop_ready(11) == [ReadyFile(A, TWO, decode=False)]
    settling.postpone(A, 11)
    settling.pop_ready(13)
    settling.postpone(A, 18)
    assert settling.pop_ready(19) == [ReadyFile(A, TWO, decode=True)]


def test_no_settling_at_all_is_possible() -> None:
    settling = SettleTracker(0, 0)
    settling.record_sighting(A, ONE, 5)
    assert settling.pop_ready(5) == [ReadyFile(A, ONE, decode=True)]
    settling.postpone(A, 5)
    assert settling.next_ready_at() == 5.5


def test_a_forgotten_file_is_not_due_and_may_come_again() -> None:
    settling = SettleTracker(2, 600)
    settling.record_sighting(A, ONE, 0)
    settling.remove(A, ONE)
    settling.remove(B, ONE)
    settling.postpone(B, 0)
    assert len(settling) == 0
    assert settling.pop_ready(99) == []
    assert settling.record_sighting(A, ONE, 100)
    assert settling.pop_ready(102) == [ReadyFile(A, ONE, decode=False)]


def test_only_a_validated_file_is_forgotten() -> None:
    settling = SettleTracker(2, 600)
    settling.record_sighting(A, ONE, 0)
    settling.pop_ready(2)
    settling.record_sighting(A, TWO, 2.5)
    settling.remove(A, ONE)
    assert settling.pop_ready(4.5) == [ReadyFile(A, TWO, decode=False)]
    settling.remove(A, TWO)
    assert A not in settling


def test_an_unrecorded_file_comes_back_with_its_latest_change_time() -> None:
    settling = SettleTracker(2, 600)
    settling.record_sighting(A, ONE, 0)
    [due] = settling.pop_ready(2)
    settling.retry_later(due, 2)
    assert settling.next_ready_at() == 4
    [due] = settling.pop_ready(4)
    settling.record_sighting(A, TWO, 4.5)
    settling.retry_later(due, 5)
    assert settling.next_ready_at() == 6.5
    settling.remove(A, TWO)
    settling.retry_later(due, 7)
    assert settling.next_ready_at() == 9


def test_the_longest_waiting_come_first_and_at_most_the_limit() -> None:
    settling = SettleTracker(2, 600)
    paths = [f"{number}.jpg" for number in range(5)]
    for number, path in enumerate(paths):
        settling.record_sighting(path, ONE, number)
    assert [due.relative for due in settling.pop_ready(99, limit=3)] == paths[:3]
    assert [due.relative for due in settling.pop_ready(99)] == paths[3:]


def test_fifty_thousand_changes_cost_little() -> None:
    settling = SettleTracker(2, 600)
    paths = [f"{number}.jpg" for number in range(5_000)]
    for change in range(10):
        for path in paths:
            settling.record_sighting(path, Stamp(1, change, change), change)
    assert len(settling.pop_ready(100)) == len(paths)
    assert len(settling._heap) <= 2 * len(paths) + 64


class SettlingMachine(RuleBasedStateMachine):
    """A comparison with a model: a path is due exactly when its stamp is stable, and once until it is put back."""

    def __init__(self) -> None:
        super().__init__()
        self.settling = SettleTracker(3, 20)
        self.now = 0.0
        self.seen: dict[str, tuple[Stamp, float]] = {}
        self.out: set[str] = set()

    @rule(path=st.sampled_from([A, B]), size=st.integers(0, 2))
    def see(self, path: str, size: int) -> None:
        stamp = Stamp(1, size, 0)
        news = path not in self.seen or self.seen[path][0] != stamp
        assert self.settling.record_sighting(path, stamp, self.now) is news
        if news:
            self.seen[path] = (stamp, self.now)
            self.out.discard(path)

    @rule(seconds=st.floats(0, 10))
    def advance(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def take_due(self) -> None:
        for due in self.settling.pop_ready(self.now):
            stamp, since = self.seen[due.relative]
            assert due.relative not in self.out
            assert due.stamp == stamp
            assert self.now - since >= 3
            assert due.decode is (self.now - since >= 20)
            self.out.add(due.relative)

    @rule(path=st.sampled_from([A, B]))
    def put_back(self, path: str) -> None:
        if path in self.out:
            self.settling.postpone(path, self.now)
            self.out.discard(path)

    @rule(path=st.sampled_from([A, B]))
    def forget(self, path: str) -> None:
        if path in self.seen:
            self.settling.remove(path, self.seen[path][0])
        self.seen.pop(path, None)
        self.out.discard(path)

    @invariant()
    def nothing_is_lost(self) -> None:
        assert len(self.settling) == len(self.seen)
        assert (self.settling.next_ready_at() is None) is (self.out == set(self.seen))


TestSettlingMachine = pytest.mark.untraced(SettlingMachine.TestCase)
TestSettlingMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None, database=None)
