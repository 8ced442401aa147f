"""Accounts over a store in memory, with a clock that stands still and hashes that cost little."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

from qmail_core.config import EngineConfig
from qmail_core.engine.accounts import Account, Accounts, Entry, NewUser, Origin
from qmail_core.engine.accounts.passwords import Passwords
from qmail_core.engine.context import Context
from qmail_core.engine.ids import ObjectIds
from qmail_core.model import Address
from qmail_core.store.sqlite import SqliteStore

PASSWORD = "correct horse battery"
HERE = Origin("192.0.2.7", "session-1")
NOBODY = bytes(12)  # an object id nobody has


class World:
    """What the accounts ask of an engine."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.clock = 1_800_000_000
        self.config = EngineConfig(data=str(folder), domain="example.org", **config)
        self.store = SqliteStore(None)
        self.entropy = os.urandom
        self.address = Address(1, 13054)
        self.new_oid = ObjectIds(self.now, self.entropy)
        self.accounts = Accounts(cast(Context, self), Passwords(self.entropy, memory_kib=64))

    def now(self) -> int:
        return self.clock

    async def user(self, name: str = "ada", **fields: Any) -> Account:
        return await self.accounts.users.create(NewUser(username=name, password=PASSWORD, **fields))

    def log(self, user: Account) -> list[Entry]:
        return list(self.accounts.authlog(user.oid, 250).rows)

    async def close(self) -> None:
        self.accounts.close()
        await self.store.close()


def story(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an asynchronous test that takes a World."""

    def run(tmp_path: Path, **arguments: Any) -> None:
        async def whole() -> None:
            world = World(tmp_path)
            try:
                await test(world, **arguments)
            finally:
                await world.close()

        asyncio.run(whole())

    others = list(inspect.signature(test).parameters.values())[1:]
    folder = inspect.Parameter("tmp_path", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__signature__ = inspect.Signature([folder, *others])  # type: ignore[attr-defined]
    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run
