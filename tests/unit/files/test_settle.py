"""Settling: stillness is measured by what was seen, and no candidate is ever lost."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from picwish_watchd.inbox.settling import Due, Settling
from picwish_watchd.job import Stamp

A, B = "a.jpg", "scans/b.jpg"
ONE, TWO = Stamp(1, 10, 100), Stamp(1, 20, 200)


def test_a_file_is_due_once_it_has_stood_still() -> None:
    settling = Settling(2, 600)
    assert settling.next_due() is None
    assert settling.see(A, ONE, 10)
    assert settling.next_due() == 12
    assert settling.due(11.9) == []
    assert settling.due(12) == [Due(A, ONE, decode=False)]
    assert settling.due(99) == []
    assert settling.next_due() is None
    assert A in settling


def test_a_change_begins_the_wait_anew_and_the_same_stamp_does_not() -> None:
    settling = Settling(2, 600)
    settling.see(A, ONE, 10)
    assert not settling.see(A, ONE, 11)
    assert settling.see(A, TWO, 11.5)
    assert settling.due(13) == []
    assert settling.due(13.5) == [Due(A, TWO, decode=False)]


def test_a_file_that_changed_while_it_was_looked_at_comes_back() -> None:
    settling = Settling(2, 600)
    settling.see(A, ONE, 0)
    settling.due(2)
    settling.see(A, TWO, 2.5)
    assert settling.next_due() == 4.5


def test_looks_at_an_unfinished_file_grow_rarer_and_one_comes_at_the_timeout() -> None:
    settling = Settling(2, 100)
    settling.see(A, ONE, 0)
    looks: list[tuple[float, bool]] = []
    now = 0.0
    while len(looks) < 9:
        now = settling.next_due() or 0.0
        [due] = settling.due(now)
        looks.append((now, due.decode))
        settling.not_yet(A, now)
    assert [at for at, _ in looks] == [2, 4, 8, 16, 32, 64, 100, 160, 220]
    assert [decode for _, decode in looks] == [False] * 6 + [True] * 3


def test_the_timeout_counts_from_the_last_change() -> None:
    settling = Settling(2, 10)
    settling.see(A, ONE, 0)
    settling.see(A, TWO, 9)
    assert settling.due(11) == [Due(A, TWO, decode=False)]
    settling.not_yet(A, 11)
    settling.due(13)
    settling.not_yet(A, 18)
    assert settling.due(19) == [Due(A, TWO, decode=True)]


def test_no_settling_at_all_is_possible() -> None:
    settling = Settling(0, 0)
    settling.see(A, ONE, 5)
    assert settling.due(5) == [Due(A, ONE, decode=True)]
    settling.not_yet(A, 5)
    assert settling.next_due() == 5.5


def test_a_forgotten_file_is_not_due_and_may_come_again() -> None:
    settling = Settling(2, 600)
    settling.see(A, ONE, 0)
    settling.forget(A, ONE)
    settling.forget(B, ONE)
    settling.not_yet(B, 0)
    assert len(settling) == 0
    assert settling.due(99) == []
    assert settling.see(A, ONE, 100)
    assert settling.due(102) == [Due(A, ONE, decode=False)]


def test_only_what_was_looked_at_is_forgotten() -> None:
    settling = Settling(2, 600)
    settling.see(A, ONE, 0)
    settling.due(2)
    settling.see(A, TWO, 2.5)
    settling.forget(A, ONE)
    assert settling.due(4.5) == [Due(A, TWO, decode=False)]
    settling.forget(A, TWO)
    assert A not in settling


def test_what_could_not_be_written_down_comes_back_and_keeps_the_time_of_a_later_change() -> None:
    settling = Settling(2, 600)
    settling.see(A, ONE, 0)
    [due] = settling.due(2)
    settling.see_again(due, 2)
    assert settling.next_due() == 4
    [due] = settling.due(4)
    settling.see(A, TWO, 4.5)
    settling.see_again(due, 5)
    assert settling.next_due() == 6.5
    settling.forget(A, TWO)
    settling.see_again(due, 7)
    assert settling.next_due() == 9


def test_the_longest_waiting_come_first_and_no_more_than_asked_for() -> None:
    settling = Settling(2, 600)
    paths = [f"{number}.jpg" for number in range(5)]
    for number, path in enumerate(paths):
        settling.see(path, ONE, number)
    assert [due.relative for due in settling.due(99, limit=3)] == paths[:3]
    assert [due.relative for due in settling.due(99)] == paths[3:]


def test_fifty_thousand_changes_cost_little() -> None:
    settling = Settling(2, 600)
    paths = [f"{number}.jpg" for number in range(5_000)]
    for change in range(10):
        for path in paths:
            settling.see(path, Stamp(1, change, change), change)
    assert len(settling.due(100)) == len(paths)
    assert len(settling._heap) <= 2 * len(paths) + 64


class SettlingMachine(RuleBasedStateMachine):
    """Against a model: a path is due exactly when its stamp stood still, and only once until it is put back."""

    def __init__(self) -> None:
        super().__init__()
        self.settling = Settling(3, 20)
        self.now = 0.0
        self.seen: dict[str, tuple[Stamp, float]] = {}
        self.out: set[str] = set()

    @rule(path=st.sampled_from([A, B]), size=st.integers(0, 2))
    def see(self, path: str, size: int) -> None:
        stamp = Stamp(1, size, 0)
        news = path not in self.seen or self.seen[path][0] != stamp
        assert self.settling.see(path, stamp, self.now) is news
        if news:
            self.seen[path] = (stamp, self.now)
            self.out.discard(path)

    @rule(seconds=st.floats(0, 10))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def due(self) -> None:
        for due in self.settling.due(self.now):
            stamp, since = self.seen[due.relative]
            assert due.relative not in self.out
            assert due.stamp == stamp
            assert self.now - since >= 3
            assert due.decode is (self.now - since >= 20)
            self.out.add(due.relative)

    @rule(path=st.sampled_from([A, B]))
    def put_back(self, path: str) -> None:
        if path in self.out:
            self.settling.not_yet(path, self.now)
            self.out.discard(path)

    @rule(path=st.sampled_from([A, B]))
    def forget(self, path: str) -> None:
        if path in self.seen:
            self.settling.forget(path, self.seen[path][0])
        self.seen.pop(path, None)
        self.out.discard(path)

    @invariant()
    def nothing_is_lost(self) -> None:
        assert len(self.settling) == len(self.seen)
        assert (self.settling.next_due() is None) is (self.out == set(self.seen))


TestSettlingMachine = pytest.mark.untraced(SettlingMachine.TestCase)
TestSettlingMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None, database=None)
