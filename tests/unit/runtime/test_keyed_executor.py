"""The keyed executor: each key runs one call after the other, and a call that hangs delays no other key."""

import asyncio
import threading

import pytest

from picwish_watchd.runtime.keyed_executor import KeyedExecutor
from picwish_watchd.runtime.worker_key import WorkerKey


def has_running_calls(lanes: KeyedExecutor) -> bool:
    """Return the current value; a property would be narrowed by the type checker."""
    return lanes.has_running


async def test_an_executor_returns_or_raises_what_the_function_does() -> None:
    lanes = KeyedExecutor()
    assert await lanes.run(WorkerKey("disk"), divmod, 7, 2) == (3, 1)
    assert await lanes.run(WorkerKey("disk"), int, "ff", base=16) == 255
    with pytest.raises(ZeroDivisionError):
        await lanes.run(WorkerKey("disk"), divmod, 7, 0)
    assert not has_running_calls(lanes)
    lanes.close()


async def test_calls_of_one_key_run_in_order_in_a_thread_named_after_it() -> None:
    lanes = KeyedExecutor()
    order: list[tuple[int, str]] = []
    await asyncio.gather(
        *(
            lanes.run(WorkerKey.outbox("scans"), lambda n: order.append((n, threading.current_thread().name)), number)
            for number in range(20)
        )
    )
    assert [number for number, _ in order] == list(range(20))
    assert {name for _, name in order} == {"out:scans"}
    lanes.close()


async def test_a_stuck_key_blocks_neither_other_keys_nor_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("picwish_watchd.runtime.keyed_executor.STUCK_TIMEOUT", 0.05)
    lanes = KeyedExecutor()
    hanging = threading.Event()
    stuck = asyncio.create_task(lanes.run(WorkerKey("nas"), hanging.wait, 20))
    behind = asyncio.create_task(lanes.run(WorkerKey("nas"), str))
    await asyncio.sleep(0)
    assert await lanes.run(WorkerKey("disk"), str, 1) == "1"
    assert has_running_calls(lanes)
    assert not lanes.is_stuck(WorkerKey("nas"))
    await asyncio.sleep(0.1)
    assert lanes.is_stuck(WorkerKey("nas"))
    assert not lanes.is_stuck(WorkerKey("disk"))
    lanes.close()
    assert not stuck.done()
    with pytest.raises(asyncio.CancelledError):
        await behind
    hanging.set()
    assert await stuck
    assert not has_running_calls(lanes)
    assert not lanes.is_stuck(WorkerKey("nas"))


async def test_a_call_whose_waiter_gave_up_still_runs_to_its_end() -> None:
    lanes = KeyedExecutor()
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(20)
        ended.set()

    waiter = asyncio.create_task(lanes.run(WorkerKey("disk"), work))
    await asyncio.to_thread(begun.wait, 20)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert has_running_calls(lanes)
    go_on.set()
    assert await lanes.run(WorkerKey("disk"), ended.is_set)
    assert not has_running_calls(lanes)
    lanes.close()
