"""The keyed executor: each key runs one call after the other, and a call that hangs delays no other key."""

import asyncio
import threading

import pytest

from picwish_watchd.runtime.keyed_executor import KeyedExecutor
from picwish_watchd.runtime.worker_key import WorkerKey


def has_running_calls(executor: KeyedExecutor) -> bool:
    """Return the current value; a property would be narrowed by the type checker."""
    return executor.has_unfinished_calls


async def test_an_executor_returns_or_raises_what_the_function_does() -> None:
    executor = KeyedExecutor()
    assert await executor.run(WorkerKey("disk"), divmod, 7, 2) == (3, 1)
    assert await executor.run(WorkerKey("disk"), int, "ff", base=16) == 255
    with pytest.raises(ZeroDivisionError):
        await executor.run(WorkerKey("disk"), divmod, 7, 0)
    assert not has_running_calls(executor)
    executor.close()


async def test_calls_of_one_key_run_in_order_in_a_thread_named_after_it() -> None:
    executor = KeyedExecutor()
    order: list[tuple[int, str]] = []
    await asyncio.gather(
        *(
            executor.run(
                WorkerKey.outbox("scans"), lambda n: order.append((n, threading.current_thread().name)), number
            )
            for number in range(20)
        )
    )
    assert [number for number, _ in order] == list(range(20))
    assert {name for _, name in order} == {"out:scans"}
    executor.close()


async def test_a_stuck_key_blocks_neither_other_keys_nor_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("picwish_watchd.runtime.keyed_executor.STUCK_TIMEOUT", 0.05)
    executor = KeyedExecutor()
    hanging = threading.Event()
    stuck = asyncio.create_task(executor.run(WorkerKey("nas"), hanging.wait, 20))
    behind = asyncio.create_task(executor.run(WorkerKey("nas"), str))
    await asyncio.sleep(0)
    assert await executor.run(WorkerKey("disk"), str, 1) == "1"
    assert has_running_calls(executor)
    assert not executor.is_stuck(WorkerKey("nas"))
    await asyncio.sleep(0.1)
    assert executor.is_stuck(WorkerKey("nas"))
    assert not executor.is_stuck(WorkerKey("disk"))
    executor.close()
    assert not stuck.done()
    with pytest.raises(asyncio.CancelledError):
        await behind
    hanging.set()
    assert await stuck
    assert not has_running_calls(executor)
    assert not executor.is_stuck(WorkerKey("nas"))


async def test_a_call_whose_waiter_gave_up_still_runs_to_its_end() -> None:
    executor = KeyedExecutor()
    started, go_on, finished = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        go_on.wait(20)
        finished.set()

    waiter = asyncio.create_task(executor.run(WorkerKey("disk"), work))
    await asyncio.to_thread(started.wait, 20)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert has_running_calls(executor)
    go_on.set()
    assert await executor.run(WorkerKey("disk"), finished.is_set)
    assert not has_running_calls(executor)
    executor.close()
