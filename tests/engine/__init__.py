"""Stories of the engine in virtual time, over a whole network in memory; and the books that must always balance."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from qmail_core import Cluster, Engine
from qmail_core.codec.cipher import locker_key
from qmail_core.store.base import Locker, LockerKind, LockerState
from tests.conftest import virtual

T0 = 1_800_000_000.0
BALANCE = 500

Story = Callable[[Cluster], Awaitable[None]]


def now() -> float:
    """Virtual seconds since the story began."""
    return asyncio.get_running_loop().time()


def clock() -> float:
    """The same as Unix time."""
    return T0 + now()


def play(story: Story, nodes: int = 25, **options: Any) -> None:
    """Tell a story on a fresh network."""

    async def whole() -> None:
        async with Cluster(nodes, clock=clock, entropy=random.Random(6).randbytes, **options) as cluster:
            await story(cluster)

    virtual(whole())


async def couple(cluster: Cluster, **config: object) -> tuple[Engine, Engine]:
    """Alice and Bob."""
    return await cluster.engine("alice", **config), await cluster.engine("bob", **config)  # type: ignore[arg-type]


async def content(engine: Engine, message_id: bytes, attachment_id: int) -> bytes:
    """The bytes of an attachment."""
    return read((await engine.attachment(message_id, attachment_id)).path)


def read(path: str | Path) -> bytes:
    return Path(path).read_bytes()


def lockers(engine: Engine, **where: Any) -> list[Locker]:
    return engine._store.wallet.lockers(**where)


def check_books(cluster: Cluster, engine: Engine, balance: int = BALANCE) -> None:
    """No coin is lost or doubled, and every locker counted as spent was taken by the node and for the mail it names."""
    wallet = engine._store.wallet
    held = lockers(engine)
    assert wallet.balance("Default") + sum(locker.value for locker in held) == balance
    free = {coin.address for coin in wallet.coins("Default")}
    for locker in held:
        coins = wallet.locker_coins(locker.code)
        assert sum(coin.value for coin in coins) == locker.value
        assert not free & {coin.address for coin in coins}
        free |= {coin.address for coin in coins}
        if locker.state == LockerState.AVAILABLE:
            for node in locker.funded:
                key = locker_key(locker.code.encode(), node)
                assert list(cluster.raida.nodes[node].state.locker(key)), f"node {node} has taken a free locker"
        if locker.state == LockerState.CONSUMED and locker.kind == LockerKind.UPLOAD:
            assert locker.guid is not None
            assert locker.node is not None
            assert locker.unit is not None
            unit = locker.unit + 9 if locker.unit else 0
            paid = cluster.raida.nodes[locker.node].state.paid(locker.guid, unit)
            assert paid == locker_key(locker.code.encode(), locker.node)
