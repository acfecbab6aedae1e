"""The state file of the notifications: which content is read, and which counts as none."""

import json
from pathlib import Path
from typing import Any

import pytest

from picwish_watchd.notify import state_file

GROUP = {"since": 1.5, "first": 3, "last": 9, "count": 2, "some": [{"job": 1, "rule": "scans", "file": "a.jpg"}]}
ALERT_STATE = {"since": 2, "told": True, "gone": None, "over": "It is over", "event": "blocked"}
DIGESTED = {"day": "2027-03-01", "at": 5.0, "event": 7}
MESSAGE = {
    "id": "held-3-9",
    "event": "held",
    "at": 5.0,
    "subject": "a.jpg is held",
    "text": "line\nline",
    "facts": {"count": 1, "jobs": [{"job": 1}], "more": {"deep": [None, True, 1.5]}},
    "over": False,
}
STATE: dict[str, Any] = {
    "event": 12,
    "groups": {"held/submit_outcome_unknown": GROUP},
    "told": {"held/x": 4.0, "failed/y": 5},
    "open": {"blocked:auth": ALERT_STATE},
    "spent": {"day": "80"},
    "digests": {"08:00": DIGESTED},
    "waiting": [{"notice": MESSAGE, "to": ["0123abcd"]}],
}


def load(tmp_path: Path, content: bytes) -> state_file.NotifyState | None:
    path = tmp_path / "journal.db.notify"
    path.write_bytes(content)
    return state_file.load_state(path)


def encode(**other: object) -> bytes:
    return json.dumps({**STATE, **other}).encode()


def as_objects(*values: object) -> tuple[object, ...]:
    return values


def without(mapping: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}


def test_a_state_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    state = load(tmp_path, encode())
    assert state is not None
    assert json.loads(state_file.dump_state(state)) == STATE
    assert load(tmp_path, state_file.dump_state(state)) == state


def test_optional_keys_of_an_entry_may_be_missing(tmp_path: Path) -> None:
    notice = without(without(MESSAGE, "facts"), "over")
    state = load(
        tmp_path,
        encode(
            groups={"held/x": {"since": 1, "first": 1, "last": 1}},
            open={"inbox:x": {"since": 1}},
            waiting=[{"notice": notice, "to": []}],
        ),
    )
    assert state is not None
    assert (state.groups["held/x"].count, state.groups["held/x"].some) == (0, [])
    assert (state.open["inbox:x"].told, state.open["inbox:x"].gone) == (False, None)
    assert (state.waiting[0].notice.facts, state.waiting[0].notice.over) == ({}, False)


@pytest.mark.parametrize("content", [encode(later=1), encode(waiting=[{"notice": MESSAGE, "to": [], "later": 1}])])
def test_an_unknown_key_at_the_top_or_of_a_waiting_message_is_ignored(tmp_path: Path, content: bytes) -> None:
    assert load(tmp_path, content) is not None


@pytest.mark.parametrize("key", STATE)
def test_a_state_without_one_of_its_keys_counts_as_none(tmp_path: Path, key: str) -> None:
    assert load(tmp_path, json.dumps(without(STATE, key)).encode()) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"12",
        b"\x00" * 64,
        encode()[:-1],
        encode() + b"x",
        b"[" * 10_000,
        encode(event=None),
        encode(event={}),
        encode(groups=[]),
        encode(told={"held/x": None}),
        encode(told={"held/x": "long"}),
        encode(spent=[]),
        encode(waiting=[{"notice": MESSAGE}]),
        encode(waiting=[{"notice": MESSAGE, "to": [1]}]),
        encode(waiting=[{"notice": MESSAGE, "to": 1}]),
        *(encode(groups={"held/x": {**GROUP, "count": value}}) for value in as_objects("1", 1.5, True, None)),
        *(encode(groups={"held/x": {**GROUP, "some": value}}) for value in as_objects({}, [1], None)),
        *(encode(open={"blocked:auth": {**ALERT_STATE, "told": value}}) for value in as_objects(1, "yes", None)),
        *(encode(open={"blocked:auth": {**ALERT_STATE, "gone": value}}) for value in as_objects("1", True, [])),
        *(encode(digests={"08:00": {**DIGESTED, "day": value}}) for value in as_objects(1, None)),
        *(encode(waiting=[{"notice": {**MESSAGE, "facts": value}, "to": []}]) for value in as_objects([], None, 1)),
        *(encode(groups={"held/x": entry}) for entry in ({**GROUP, "later": 1}, without(GROUP, "first"))),
        *(
            encode(open={"blocked:auth": entry})
            for entry in ({**ALERT_STATE, "later": 1}, without(ALERT_STATE, "since"))
        ),
        *(encode(digests={"08:00": entry}) for entry in ({**DIGESTED, "later": 1}, without(DIGESTED, "day"))),
        *(
            encode(waiting=[{"notice": entry, "to": []}])
            for entry in ({**MESSAGE, "later": 1}, without(MESSAGE, "subject"))
        ),
    ],
)
def test_a_damaged_or_foreign_state_counts_as_none(tmp_path: Path, content: bytes) -> None:
    assert load(tmp_path, content) is None


def test_a_missing_file_and_a_folder_count_as_none(tmp_path: Path) -> None:
    assert state_file.load_state(tmp_path / "nothing") is None
    assert state_file.load_state(tmp_path) is None
