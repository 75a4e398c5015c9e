"""Calls of one function wait without a thread each, and everything else is as in any pool."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

import pytest

from r4t.interop.batching import Batcher
from r4t.interop.waiting import WaitingPool, then

CALLS = 64


def double(entries: list[int]) -> list[int]:  # noqa: ARG001
    raise AssertionError("it would take a thread")


def test_calls_beyond_the_threads_are_one_batch_and_each_gets_its_own() -> None:
    batcher: Batcher[int, int] = Batcher(lambda entries: [2 * entry for entry in entries], wait=2.0, most=CALLS)

    async def ask() -> list[list[int]]:
        asyncio.get_running_loop().set_default_executor(WaitingPool(double, batcher.submit, 1))
        return await asyncio.gather(*(asyncio.to_thread(double, [i]) for i in range(CALLS)))

    assert asyncio.run(ask()) == [[2 * i] for i in range(CALLS)]
    assert batcher.load.largest == CALLS


def test_what_cannot_begin_and_what_fails_is_raised_at_its_caller() -> None:
    def begin(entries: list[int]) -> Future[list[int]]:
        if not entries:
            raise ValueError("nothing")
        pending: Future[list[int]] = Future()
        pending.set_exception(RuntimeError("late")) if entries == [0] else pending.set_result(entries)
        return pending

    async def ask() -> list[list[int] | BaseException]:
        asyncio.get_running_loop().set_default_executor(WaitingPool(double, begin, 1))
        return await asyncio.gather(*(asyncio.to_thread(double, one) for one in ([], [0], [1])), return_exceptions=True)

    first, second, third = asyncio.run(ask())
    assert isinstance(first, ValueError)
    assert isinstance(second, RuntimeError)
    assert third == [1]


def test_other_functions_get_a_thread() -> None:
    async def ask() -> str:
        asyncio.get_running_loop().set_default_executor(WaitingPool(double, double, 1))
        return (await asyncio.to_thread(threading.current_thread)).name

    assert asyncio.run(ask()).startswith("r4t-reward")


def test_then_converts_results_passes_errors_on_and_leaves_who_gave_up_alone() -> None:
    good: Future[int] = Future()
    converted, gone = then(good, str), then(good, str)
    assert gone.cancel()
    good.set_result(3)
    assert converted.result(0) == "3"
    bad: Future[int] = Future()
    failed, unconverted = then(bad, str), then(good, lambda _: 1 // 0)
    bad.set_exception(ValueError("x"))
    with pytest.raises(ValueError, match="x"):
        failed.result(0)
    with pytest.raises(ZeroDivisionError):
        unconverted.result(0)
