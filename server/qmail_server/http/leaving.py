"""Noticing that a client leaves while its answer waits for something: without a task, as thousands may wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from starlette.types import Receive


class Leaving:
    """Calls `left` when the client of a request leaves. Its `receive` is stepped here as a task would step it."""

    __slots__ = ("_left", "_receive", "_steps")

    def __init__(self, receive: Receive, left: Callable[[], object]) -> None:
        self._receive = receive
        self._left = left
        self._steps: Iterator[Any] | None = receive().__await__()
        self._step()

    def close(self) -> None:
        """Look no longer."""
        steps, self._steps = self._steps, None
        if steps is not None:
            steps.close()  # type: ignore[attr-defined]

    def _step(self, _: object = None) -> None:
        while self._steps is not None:
            try:
                waits = next(self._steps)
            except StopIteration as ended:
                self._ended(ended.value)
                continue
            if waits is None:  # it only gives way
                asyncio.get_running_loop().call_soon(self._step)
            else:
                waits._asyncio_future_blocking = False  # as a task says that it has taken note of the future
                waits.add_done_callback(self._step)
            return

    def _ended(self, message: Any) -> None:
        if message["type"] != "http.disconnect":
            self._steps = self._receive().__await__()  # the rest of a body that nobody reads
            return
        self._steps = None
        self._left()
