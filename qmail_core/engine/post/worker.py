"""A turn of work, again and again: now and then, and at once when woken."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from qmail_core.errors import QMailError

log = logging.getLogger("qmail.post")
_TICK = 2.0  # seconds between turns nobody asked for


class Worker:
    """Runs a turn in the background; one at a time, whoever asks for it."""

    def __init__(self, name: str, turn: Callable[[], Awaitable[None]]) -> None:
        self._name = name
        self._turn = turn
        self._woken = asyncio.Event()
        self._one = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        """End; a turn under way is cut."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def wake(self) -> None:
        """There is something to do."""
        self._woken.set()

    async def once(self) -> None:
        """One turn now."""
        async with self._one:
            await self._turn()

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                await self.once()
            except QMailError as error:
                log.warning("%s: %s", self._name, error)
            except Exception:
                log.exception("%s failed", self._name)
            # not wait_for, which forgets that it was cancelled when it is woken in the same moment
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK):
                    await self._woken.wait()
