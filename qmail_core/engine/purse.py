"""The coins of an engine's wallets: taken over, changed and healed, by one user at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from qmail_core.codec import consts as c
from qmail_core.codec.change import PARTS
from qmail_core.codec.cipher import locker_code
from qmail_core.engine.change import Changer
from qmail_core.engine.context import Context
from qmail_core.engine.heal import AT_ONCE, Healer
from qmail_core.errors import NotFound, UsageError
from qmail_core.model import Address, Coin, Healed, Powned


class Purse:
    """Checks what is asked for, and holds the lock everybody needs who moves coins out of a wallet."""

    def __init__(self, ctx: Context) -> None:
        self._store = ctx.store.wallet
        self._healer = Healer(ctx)
        self.changer = Changer(ctx)
        self.lock = asyncio.Lock()

    async def pown(self, coins: Sequence[Coin], wallet: str) -> Powned:
        """Take coins over that somebody else may still know."""
        async with self.lock:
            return await self.changer.pown(coins, wallet)

    async def receive(self, code: str, wallet: str, payment: bytes = b"") -> Powned:
        """Take what lies in a locker somebody else filled; `payment` is the guid of the mail it came with."""
        if not code.isascii() or not 1 <= len(code) <= c.LOCKER_CODE_SIZE:
            raise UsageError("A locker code has 1 to 16 ASCII characters")
        async with self.lock:
            return await self.changer.take(locker_code(code), wallet, payment)

    async def break_coin(self, address: Address, wallet: str) -> tuple[Coin, ...]:
        """Ten coins for one of the wallet."""
        if address.denomination < 1:
            raise UsageError("Only coins of 10 CC and more can be broken")
        async with self.lock:
            (coin,) = self._own(wallet, [address])
            return await self.changer.break_coin(coin, wallet)

    async def join(self, addresses: Sequence[Address], wallet: str) -> Coin:
        """One coin for ten of the wallet."""
        kinds = {address.denomination for address in addresses}
        if len(set(addresses)) != PARTS or len(addresses) != PARTS or len(kinds) != 1:
            raise UsageError("Ten different coins of one denomination make one of the next")
        if not 0 <= addresses[0].denomination < c.DENOMINATIONS[-1]:
            raise UsageError("Coins of this denomination cannot be joined")
        async with self.lock:
            return await self.changer.join(self._own(wallet, addresses), wallet)

    def _own(self, wallet: str, addresses: Iterable[Address]) -> list[Coin]:
        held = {coin.address: coin for coin in self._store.coins(wallet)}
        try:
            return [held[address] for address in addresses]
        except KeyError:
            raise NotFound("The wallet has no such coin") from None

    async def heal(self, wallet: str) -> Healed:
        """Look at every coin of a wallet at all nodes, and mend what can be mended."""
        addresses = [coin.address for coin in self._store.coins(wallet)]
        found = []
        for start in range(0, len(addresses), AT_ONCE):
            async with self.lock:
                part = set(addresses[start : start + AT_ONCE])
                # read again: coins may have left, or changed, since the lock was let go
                found += await self._healer.heal([coin for coin in self._store.coins(wallet) if coin.address in part])
        return Healed(len(addresses), tuple(found))
