"""Lanes: each does one thing after the other, and one that hangs holds up no other."""

import asyncio
import threading

import pytest

from picwish_watchd.runtime.keyed_executor import Lanes


def busy(lanes: Lanes) -> bool:
    """Asked anew each time."""
    return lanes.busy


async def test_a_lane_gives_back_what_the_function_answers_or_raises() -> None:
    lanes = Lanes()
    assert await lanes.run("disk", divmod, 7, 2) == (3, 1)
    assert await lanes.run("disk", int, "ff", base=16) == 255
    with pytest.raises(ZeroDivisionError):
        await lanes.run("disk", divmod, 7, 0)
    assert not busy(lanes)
    lanes.close()


async def test_a_lane_does_one_thing_after_the_other_in_a_thread_of_its_name() -> None:
    lanes = Lanes()
    order: list[tuple[int, str]] = []
    await asyncio.gather(
        *(
            lanes.run("out:scans", lambda n: order.append((n, threading.current_thread().name)), number)
            for number in range(20)
        )
    )
    assert [number for number, _ in order] == list(range(20))
    assert {name for _, name in order} == {"out:scans"}
    lanes.close()


async def test_a_lane_that_hangs_holds_up_no_other_and_no_closing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("picwish_watchd.runtime.keyed_executor.PATIENCE", 0.05)
    lanes = Lanes()
    hanging = threading.Event()
    stuck = asyncio.create_task(lanes.run("nas", hanging.wait, 20))
    behind = asyncio.create_task(lanes.run("nas", str))
    await asyncio.sleep(0)
    assert await lanes.run("disk", str, 1) == "1"
    assert busy(lanes)
    assert not lanes.hangs("nas")
    await asyncio.sleep(0.1)
    assert lanes.hangs("nas")
    assert not lanes.hangs("disk")
    lanes.close()
    assert not stuck.done()
    with pytest.raises(asyncio.CancelledError):
        await behind
    hanging.set()
    assert await stuck
    assert not busy(lanes)
    assert not lanes.hangs("nas")


async def test_a_call_whose_waiter_gave_up_still_runs_to_its_end() -> None:
    lanes = Lanes()
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(20)
        ended.set()

    waiter = asyncio.create_task(lanes.run("disk", work))
    await asyncio.to_thread(begun.wait, 20)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert busy(lanes)
    go_on.set()
    assert await lanes.run("disk", ended.is_set)
    assert not busy(lanes)
    lanes.close()
