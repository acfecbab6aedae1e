"""The states: each has its row of allowed transitions, and every transition makes sense."""

import dataclasses

import pytest

from picwish_watchd.job import ALLOWED_TRANSITIONS, UNFINISHED, UNSUCCESSFUL, ErrorCode, State
from tests.unit.journal.job_factory import new_job, path_to_state


def test_every_state_has_its_row_of_legal_transitions() -> None:
    assert set(ALLOWED_TRANSITIONS) == set(State)
    assert all(following <= set(State) for following in ALLOWED_TRANSITIONS.values())


def test_a_state_is_unfinished_or_done_or_ended_badly() -> None:
    assert [*UNFINISHED, State.DONE, *UNSUCCESSFUL] == list(State)


def test_done_is_final_and_no_state_follows_itself() -> None:
    assert ALLOWED_TRANSITIONS[State.DONE] == frozenset()
    assert all(state not in following for state, following in ALLOWED_TRANSITIONS.items())


@pytest.mark.parametrize("state", State)
def test_every_state_can_be_reached_from_queued(state: State) -> None:
    assert len(path_to_state(state)) <= 5


def test_money_is_spent_through_the_intent_alone() -> None:
    assert [state for state in State if State.SUBMITTING in ALLOWED_TRANSITIONS[state]] == [State.QUEUED]
    # A copy is delivered from the first result of its content, and costs nothing.
    paid_for = {State.PENDING, State.FETCHING}
    assert not ALLOWED_TRANSITIONS[State.QUEUED] & paid_for


def test_failed_jobs_can_be_retried_and_rejected_ones_only_from_the_start() -> None:
    assert ALLOWED_TRANSITIONS[State.REJECTED] == {State.QUEUED}
    for state in (State.FAILED, State.HELD):
        assert ALLOWED_TRANSITIONS[state] == {State.QUEUED, State.PENDING, State.DELIVERING}


def test_the_table_and_the_values_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        ALLOWED_TRANSITIONS[State.DONE] = frozenset()  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        new_job().rule = "other"  # type: ignore[misc]


def test_words_that_users_scripts_compare_are_spelled_alike() -> None:
    assert all(code.value == code.name.lower() for code in ErrorCode)
    assert all(state.value == state.name.lower() for state in State)
