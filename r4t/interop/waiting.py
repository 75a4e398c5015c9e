"""Calls that wait without a thread: OpenRLHF gives each sample's reward one, which costs more than the score."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")
U = TypeVar("U")


class WaitingPool(ThreadPoolExecutor):
    """An event loop's pool of threads, where `asyncio.to_thread(function, ...)` takes none: `begin`, given the same
    arguments, returns what is pending. Everything else gets a thread as ever."""

    def __init__(self, function: Callable[..., Any], begin: Callable[..., Future[Any]], threads: int) -> None:
        super().__init__(threads, thread_name_prefix="r4t-reward")
        self._function, self._begin = function, begin

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        # asyncio.to_thread hands over partial(context.run, function, ...)
        if isinstance(fn, partial) and fn.args[:1] == (self._function,):
            try:
                return self._begin(*fn.args[1:], **fn.keywords)
            except Exception as error:
                failed: Future[Any] = Future()
                failed.set_exception(error)
                return failed
        return super().submit(fn, *args, **kwargs)


def then(pending: Future[T], convert: Callable[[T], U]) -> Future[U]:
    """The future of what `convert` makes of a result."""
    made: Future[U] = Future()

    def done(ready: Future[T]) -> None:
        if not made.set_running_or_notify_cancel():
            return  # its caller has given up
        try:
            made.set_result(convert(ready.result()))
        except BaseException as error:
            made.set_exception(error)

    pending.add_done_callback(done)
    return made
