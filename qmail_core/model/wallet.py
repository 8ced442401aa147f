"""What became of coins, what things cost, and the pool of lockers."""

from __future__ import annotations

import enum

from msgspec import Struct

from qmail_core.model.network import Address


class PaymentStatus(enum.IntEnum):
    """What became of a payment that came with a mail."""

    UNCLAIMED = 0
    CLAIMED = 1
    FAILED = 2
    REFUNDED = 3


class Powned(Struct, frozen=True):
    """What became of coins that were to be taken over."""

    accepted: tuple[Address, ...]  # more than half of the nodes hold our numbers
    rejected: tuple[Address, ...]  # the nodes hold numbers nobody named: forged, or taken over by somebody else
    unclear: tuple[Address, ...]  # too few nodes answered; they are asked again in the background


class CoinHealth(Struct, frozen=True):
    """One coin at all nodes: p passed, f failed, u unknown; before and after healing."""

    address: Address
    before: str
    after: str


class Healed(Struct, frozen=True):
    """What a look at all coins of a wallet found, and what of it was mended."""

    checked: int
    coins: tuple[CoinHealth, ...]  # those that did not pass everywhere

    @property
    def fixed(self) -> int:
        """How many of them no node refuses any more."""
        return sum("f" not in coin.after and "f" in coin.before for coin in self.coins)


class Costs(Struct, frozen=True):
    """What a send costs, in whole CloudCoins."""

    storage: int
    inbox: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.storage + self.inbox


class PoolStatus(Struct, frozen=True):
    """The funded lockers and the wallet behind them; values in whole CloudCoins."""

    upload_available: int
    inbox_fee_available: int
    wallet_balance: int
    low_balance: bool
    available_value: int = 0  # in lockers that are ready
    reserved_value: int = 0  # in lockers of sends that are not over
    limbo_value: int = 0  # in lockers whose fate is being found out
    upload_value: int = 0  # of all these, in upload lockers
    inbox_fee_value: int = 0

    @property
    def locked_value(self) -> int:
        """All that lies in lockers."""
        return self.available_value + self.reserved_value + self.limbo_value

    @property
    def spendable(self) -> int:
        """What can be paid with now."""
        return self.wallet_balance + self.available_value
