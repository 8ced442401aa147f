"""Committing what beacons handed out, in the background: whoever asked may have left by the time it comes.

What the store does not take is kept in memory and offered again, because the beacon may have forgotten it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from qmail_core.errors import StoreUnavailable
from qmail_core.model import Tell

log = logging.getLogger("qmail.polls")

Pairs = dict[bytes, Tell]  # by record, so that what two beacons handed out counts once
Keep = Callable[[Pairs], Awaitable[bool]]  # commits tells and announces what is new; whether anything was
Kept = asyncio.Task[bool]


class Keeper:
    """The commits of one engine."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._unkept: Pairs = {}  # the store did not take them
        self._commits: set[Kept] = set()
        self.afterwards: list[Callable[[], None]] = []  # called when no commit is under way any more

    @property
    def busy(self) -> bool:
        """Whether something is being committed."""
        return bool(self._commits)

    def take(self, pairs: Pairs) -> Kept:
        """Begin to commit; who cancels the wait for it does not end it if it is shielded."""
        task = asyncio.get_running_loop().create_task(self._commit(pairs), name="qmail-keep")
        self._commits.add(task)
        task.add_done_callback(self._ended)
        return task

    async def _commit(self, pairs: Pairs) -> bool:
        pairs, self._unkept = self._unkept | pairs, {}
        try:
            return await self._keep(pairs)
        except StoreUnavailable:
            self._unkept |= pairs
            raise

    def _ended(self, task: Kept) -> None:
        self._commits.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("tells could not be kept: %s", error)
        if not self._commits:
            calls, self.afterwards = self.afterwards, []
            for call in calls:
                call()

    async def again(self) -> None:
        """Offer the store once more what it did not take."""
        if self._unkept and not self._commits:
            with contextlib.suppress(StoreUnavailable):
                await asyncio.shield(self.take({}))

    async def close(self) -> None:
        """Wait for what is being committed, and try what is left a last time."""
        while self._commits:
            await asyncio.wait(self._commits)
        await self.again()
