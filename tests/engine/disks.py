"""Disks that are slow or full, below the store of one engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from qmail_core import Engine
from qmail_core.errors import StoreUnavailable

Change = Callable[[Any], Any]


class Disk:
    """The disk of an engine: what comes while it writes is written together next, as the store does it.

    seconds  what writing takes
    full     set: nothing can be written
    after    so many changes it becomes full
    """

    def __init__(self, engine: Engine, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.full = False
        self.after: int | None = None
        self._database: Any = engine._store._database  # type: ignore[attr-defined]
        self._real = self._database.write
        self._queue: list[tuple[Change, asyncio.Future[Any]]] = []
        self._busy: asyncio.Task[None] | None = None
        self._database.write = self._write

    async def _write(self, change: Change) -> Any:
        if self.after is not None:
            self.after -= 1
            self.full = self.full or self.after < 0
        if self.full:
            raise StoreUnavailable("the store could not be written: database or disk is full")
        if not self.seconds:
            return await self._real(change)
        future = asyncio.get_running_loop().create_future()
        self._queue.append((change, future))
        if self._busy is None:
            self._busy = asyncio.ensure_future(self._run())
        return await future

    async def _run(self) -> None:
        while self._queue:
            group, self._queue = self._queue, []
            await asyncio.sleep(self.seconds)
            ends = await asyncio.gather(*(self._real(change) for change, _ in group), return_exceptions=True)
            for (_, future), end in zip(group, ends, strict=True):
                if isinstance(end, BaseException):
                    future.set_exception(end)
                else:
                    future.set_result(end)
        self._busy = None
