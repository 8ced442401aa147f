"""PINs and what they unlock: each user's key pair, temporary keys for an hour, and the limits on guessing.

Files are sealed to the public half, so uploads need no PIN. The private half lies wrapped under a key that scrypt makes
of the PIN, and for an hour under each temporary key; the store keeps of that key a hash only, so nothing in it opens a
file.
"""

from __future__ import annotations

import asyncio
import hmac

from msgspec import Struct

from qmail_core.codec import vault
from qmail_core.engine.context import Context
from qmail_core.engine.files.tokens import KEY_LENGTH, Owner, digest, drawn
from qmail_core.errors import Conflict, QMailError, UsageError
from qmail_core.store.files import VaultRow

COST = 1 << 15  # scrypt's N: 32 MiB and a tenth of a second for each PIN that is tried
KEY_LIFE = 3600  # seconds
GUESSES = 5
WINDOW = 900  # seconds in which so many may be wrong
_AT_ONCE = 2  # PINs tried at the same time, so that a flood does not eat the memory
_LEAST, _MOST = 4, 64


class PinRefused(UsageError):
    """This is not the PIN."""

    code = "wrong_pin"


class TooManyGuesses(QMailError):
    """Too many wrong PINs; `wait` seconds until the next may be tried."""

    code = "too_many_guesses"
    hint = 429

    def __init__(self, wait: int) -> None:
        super().__init__("Too Many Attempts.")
        self.wait = wait


class Unlocked(Struct, frozen=True):
    """A temporary key."""

    key: str
    expires_at: int

    def __repr__(self) -> str:
        return f"Unlocked(until {self.expires_at})"


class Pins:
    """The PINs of one engine's users."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._store = ctx.store.files
        self._gate = asyncio.Semaphore(_AT_ONCE)

    def public(self, user: int) -> bytes:
        """What files of a user are sealed to; Conflict before the first PIN."""
        row = self._store.vault(user)
        if row is None:
            raise Conflict("Set a PIN first (PUT /api/pin): files are sealed for whoever knows it.")
        return row.public

    def is_set(self, user: int) -> bool:
        """Whether a user has a PIN."""
        return self._store.vault(user) is not None

    async def set(self, user: int, pin: str, current: str = "") -> None:
        """Set the first PIN, or change it; changing ends all temporary keys.

        raises   UsageError for a PIN that is too short or long, PinRefused or TooManyGuesses for the current one
        """
        if not _LEAST <= len(pin) <= _MOST:
            raise UsageError(f"The pin must have {_LEAST} to {_MOST} characters.")
        row = self._store.vault(user)
        private = self._ctx.entropy(vault.KEY) if row is None else await self._open(row, current)
        salt = self._ctx.entropy(16)
        secret = await self._stretch(pin, salt, COST)
        wrapped = vault.wrap(secret, self._ctx.entropy(vault.NONCE), private, b"pin")
        new = VaultRow(user=user, public=vault.public_of(private), salt=salt, cost=COST, wrapped=wrapped)
        await self._store.set_vault(new, new=row is None)

    async def unlock(self, owner: Owner, pin: str) -> Unlocked:
        """A temporary key for a PIN; PinRefused, TooManyGuesses."""
        row = self._store.vault(owner.user)
        if row is None:
            raise Conflict("No PIN is set (PUT /api/pin).")
        private = await self._open(row, pin)
        key = drawn(self._ctx.entropy, KEY_LENGTH)
        wrapped = vault.wrap(key.encode(), self._ctx.entropy(vault.NONCE), private, b"temporary key")
        now = self._ctx.now()
        await self._store.add_pin_key(owner.user, digest(key), wrapped, now, now + KEY_LIFE)
        return Unlocked(key, now + KEY_LIFE)

    def private(self, owner: Owner, key: str) -> bytes | None:
        """The private half, by a temporary key; None if that is none, or over."""
        wrapped = self._store.pin_key(owner.user, digest(key), self._ctx.now())
        return None if wrapped is None else vault.unwrap(key.encode(), wrapped, b"temporary key")

    async def revoke(self, owner: Owner, key: str) -> None:
        """End a temporary key; NotFound if it is none."""
        await self._store.drop_pin_key(owner.user, digest(key))

    async def _open(self, row: VaultRow, pin: str) -> bytes:
        # counted before it is tried: guesses made at the same time count as well
        wait = await self._store.begin_guess(row.user, self._ctx.now(), WINDOW, GUESSES)
        if wait:
            raise TooManyGuesses(wait)
        secret = await self._stretch(pin[:_MOST], row.salt, row.cost)
        private = vault.unwrap(secret, row.wrapped, b"pin")
        if private is None or not hmac.compare_digest(vault.public_of(private), row.public):
            raise PinRefused("Invalid PIN.")
        await self._store.forget_guesses(row.user)
        return private

    async def _stretch(self, pin: str, salt: bytes, cost: int) -> bytes:
        async with self._gate:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(None, vault.pin_secret, pin, salt, cost)
