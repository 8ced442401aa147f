"""What wallets hold, what a send would cost, and whether one can pay the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from msgspec import Struct

from qmail_core.engine.context import Context
from qmail_core.engine.directory import Directory
from qmail_core.engine.purse import Purse
from qmail_core.engine.wallet import Wallet
from qmail_core.model import Address, Costs, PoolStatus
from qmail_core.store.base import LockerState

_MAILS = 2  # mails a wallet should have small coins for
_MOST_BREAKS = 50


class Balance(Struct, frozen=True):
    """A wallet's coins, and the part of its lockers whose fate is not known."""

    notes: Mapping[int, int]  # how many coins, by denomination
    limbo_value: int
    limbo_notes: int

    @property
    def value(self) -> int:
        """Whole CloudCoins that are free."""
        return sum(int(10**denomination) * count for denomination, count in self.notes.items())


class Affordable(Struct, frozen=True):
    """What a send needs and what there is."""

    upload_lockers: int  # needed
    inbox_fee: int  # CloudCoins for all recipients
    from_wallet: int  # CloudCoins that have to leave the wallet, because too few lockers are ready
    pool: PoolStatus

    @property
    def ok(self) -> bool:
        """Whether it can be paid."""
        return self.from_wallet <= self.pool.wallet_balance


class Balances:
    """The sums of one engine."""

    def __init__(self, ctx: Context, wallet: Wallet, purse: Purse, directory: Directory) -> None:
        self._ctx = ctx
        self._wallet = wallet
        self._purse = purse
        self._directory = directory

    def of(self, wallet: str) -> Balance:
        """What a wallet holds."""
        store = self._ctx.store.wallet
        limbo = [x for x in store.lockers(state=LockerState.LIMBO) if x.wallet == wallet]
        notes = Counter(coin.address.denomination for coin in store.coins(wallet))
        return Balance(
            dict(sorted(notes.items())),
            sum(locker.value for locker in limbo),
            sum(len(store.locker_coins(locker.code)) for locker in limbo),
        )

    async def quote(self, recipients: Sequence[Address], files: int) -> Costs:
        """What a send costs these recipients' fees; the mail itself and each attachment is a file."""
        config = self._ctx.config
        return Costs(config.storage_fee * config.striping.n * files, sum(await self._directory.fees(recipients)))

    def affordable(self, wallet: str, upload_lockers: int, inbox_fee: int) -> Affordable:
        """Whether a wallet and its lockers can pay so much."""
        pool, fee = self._wallet.pool(wallet), self._ctx.config.storage_fee
        missing = max(0, upload_lockers - pool.upload_available) * fee
        ready = min(inbox_fee, pool.inbox_fee_available * self._ctx.config.inbox_fee)
        return Affordable(upload_lockers, inbox_fee, missing + inbox_fee - ready, pool)

    async def prepare_change(self, wallet: str) -> int:
        """Break coins until the next mails can be paid exactly; how many were broken.

        raises   QMailError if the servers cannot change coins now
        """
        config = self._ctx.config
        wanted = _MAILS * (config.striping.n * config.storage_fee + config.inbox_fee)
        for broken in range(_MOST_BREAKS):
            coins = [coin.address for coin in self._ctx.store.wallet.coins(wallet)]
            large = [address for address in coins if address.denomination > 0]
            if not large or sum(address.denomination == 0 for address in coins) >= wanted:
                return broken
            await self._purse.break_coin(min(large), wallet)
        return _MOST_BREAKS
