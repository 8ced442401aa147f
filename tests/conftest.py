"""Virtual time for tests of anything that waits: a day passes in an instant, and every run is the same run.

`virtual(story())` runs a coroutine on a loop whose clock jumps to the next timer as soon as nothing else is to be
done. Threads would make that moment a matter of luck, so thread work and store writes are done inline.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from qmail_core.errors import StoreUnavailable
from qmail_core.store import database
from qmail_core.store.database import Database

T = TypeVar("T")


class _Selector(selectors.SelectSelector):
    """Never waits: what would have been waiting moves the clock."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise AssertionError("deadlock: nothing will ever happen again")
        self.now += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that keeps no time but its own, from 0."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now

    def skip(self, seconds: float) -> None:
        self._virtual.now += seconds

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


def skip(seconds: float) -> None:
    """Let time pass without living through it: whatever was due meanwhile happens at once."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.skip(seconds)


async def _write_now(self: Database, change: Callable[[Any], Any]) -> Any:
    if self._closed:
        raise StoreUnavailable("the store is closed")
    job = database._Job(change, asyncio.get_running_loop())
    with self._lock:
        self._commit([job])
    await asyncio.sleep(0)  # a real write gives way too
    if job.error is not None:
        raise job.error
    return job.result


def virtual(story: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in virtual time."""
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner(loop_factory=VirtualLoop) as runner:
        patch.setattr(Database, "write", _write_now)
        return runner.run(story)
