"""Argon2id in a few threads: a login costs 46 MiB for a moment, and a flood of logins waits its turn for them.

Whoever checks a password holds one of `WORKERS` turns from the look at the gates to the count of the failure, so of
many attempts at once no more than there are turns pass a gate that is about to close.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from qmail_core.errors import RateLimited

log = logging.getLogger("qmail.accounts")
T = TypeVar("T")

WORKERS = 2
MOST_WAITING = 256  # logins; further ones are turned away
MEMORY_KIB = 46 * 1024
MAX_PASSWORD = 256  # characters, so at most 1 KiB


class Passwords:
    """Hashes and checks passwords, outside the loop.

    entropy     for salts
    memory_kib  what one hash takes
    """

    def __init__(self, entropy: Callable[[int], bytes], memory_kib: int = MEMORY_KIB) -> None:
        self._entropy = entropy
        self._hasher = PasswordHasher(time_cost=1, memory_cost=memory_kib, parallelism=1)
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="qmail-password")
        self._turns = asyncio.Semaphore(WORKERS)
        self._waiting = 0

    @functools.cached_property
    def _dummy(self) -> str:
        """Stands in where there is no password: as dear to check as any, and nothing fits it."""
        salt, digest = (base64.b64encode(self._entropy(size)).rstrip(b"=").decode() for size in (16, 32))
        return f"$argon2id$v=19$m={self._hasher.memory_cost},t=1,p=1${salt}${digest}"

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn; RateLimited if too many wait already."""
        if self._waiting >= MOST_WAITING:
            raise RateLimited(1)
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._turns.release()

    async def hash(self, password: str) -> str:
        """What is stored of a password."""
        salt = self._entropy(16)
        return await self.run(lambda: self._hasher.hash(_encode(password), salt=salt))

    async def verify(self, hashed: str, password: str) -> bool:
        """Whether a password is the one of a hash; an empty hash takes as long and is never met."""
        fits = await self.run(lambda: self._fits(hashed or self._dummy, password))
        return fits and bool(hashed)

    def _fits(self, hashed: str, password: str) -> bool:
        try:
            return self._hasher.verify(hashed, _encode(password))
        except InvalidHashError:
            log.error("a stored password is damaged")
        except VerificationError:
            pass
        return False

    async def run(self, work: Callable[[], T]) -> T:
        """Do work in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _encode(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")
