"""One at a time for each key; nothing is kept of keys nobody uses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager


class Turns:
    """Locks by key."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, asyncio.Lock] = {}
        self._users: dict[Hashable, int] = {}  # who holds the lock or waits for it

    def __len__(self) -> int:
        return len(self._locks)

    @asynccontextmanager
    async def take(self, key: Hashable) -> AsyncIterator[None]:
        """Wait for one's turn, and have it until the end of the block."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        self._users[key] = self._users.get(key, 0) + 1
        try:
            async with lock:
                yield
        finally:
            # not by asking the lock: while it is handed on it looks free
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._locks[key]
