"""The identity coin: healing it, and taking one out of a locker."""

from __future__ import annotations

from msgspec import Struct

from qmail_core.engine.context import Context
from qmail_core.engine.heal import Healer
from qmail_core.engine.purse import Purse
from qmail_core.errors import Conflict, QMailError, UsageError
from qmail_core.model import Coin, CoinHealth, Powned

WALLET = "Mail"  # holds the identity coin and never pays


class IdentityHealth(Struct, frozen=True):
    """How the identity coin is after healing."""

    word: str  # healthy, still_fracked, counterfeit
    healed: bool  # some server refused it before, and none does now


class Identity:
    """The identity coin of one engine."""

    def __init__(self, ctx: Context, purse: Purse) -> None:
        self._ctx = ctx
        self._purse = purse

    async def heal(self) -> IdentityHealth:
        """Mend the identity coin where servers refuse it.

        A server that refuses the coin cannot be spoken to with it, so a coin of the wallet lends its keys.
        """
        async with self._purse.lock:
            coin = self._coin()
            if coin is None:
                raise UsageError("No identity coin found. Place an ID coin in the Mail wallet.")
            lenders = self._ctx.store.wallet.coins("Default", limit=1)
            if not lenders:
                raise QMailError("No encryption keys available (no coins in wallet)")
            found = await Healer(self._ctx.speaking_as(lenders[0])).heal([coin])
            renewed = self._coin()
            if renewed is not None and renewed != self._ctx.coin:
                self._ctx.adopt(renewed)
        return self._judge(found[0]) if found else IdentityHealth("healthy", healed=False)

    def _judge(self, health: CoinHealth) -> IdentityHealth:
        if health.after.count("f") >= self._ctx.quorum:
            return IdentityHealth("counterfeit", healed=False)
        whole = "f" not in health.after and health.after.count("p") >= self._ctx.quorum
        return IdentityHealth("healthy" if whole else "still_fracked", whole and "f" in health.before)

    def _coin(self) -> Coin | None:
        coins = self._ctx.store.wallet.coins(WALLET)
        return next((coin for coin in coins if coin.address == self._ctx.address), None)

    async def receive(self, code: str) -> Powned:
        """Take an identity coin out of a locker; Conflict if there is one, as it would say who this engine is."""
        if self._ctx.store.wallet.coins(WALLET, limit=1):
            raise Conflict("The Mail wallet holds an identity coin already")
        taken = await self._purse.receive(code, WALLET)
        if not taken.accepted:
            raise QMailError("too few servers confirmed the coins")
        return taken
