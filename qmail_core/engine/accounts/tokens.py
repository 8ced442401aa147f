"""Access tokens: an id that finds the row, and 256 random bits of which only the SHA-256 is kept."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from msgspec import Struct

from qmail_core.engine.accounts.desk import Desk
from qmail_core.engine.accounts.rules import Faults
from qmail_core.errors import InvalidToken
from qmail_core.store.accounts import Account, Token

_ID = 12
_SECRET = 32
_LENGTH = 2 * (_ID + _SECRET)


class IssuedToken(Struct, frozen=True):
    """A new token, to be shown once. Prints without it."""

    token: Token
    text: str  # 88 hexadecimal digits

    def __repr__(self) -> str:
        return f"IssuedToken({self.token.oid.hex()})"


class Bearer(Struct, frozen=True):
    """Who shows a token, and what it is good for."""

    token: Token
    account: Account | None  # None: not bound to a user

    def allows(self, scope: str) -> bool:
        """Whether the token opens this; `*` opens all."""
        return "*" in self.token.scopes or scope in self.token.scopes


class Tokens:
    """The access tokens of one engine."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._store = desk.store

    async def create(
        self,
        user: bytes | None,
        *,
        scopes: Sequence[str] = ("*",),
        seconds: int | None = None,
        description: str = "",
    ) -> IssuedToken:
        """Make a token for a user, or with None for all of the interface; without `seconds` it does not expire."""
        faults = Faults()
        faults.text("description", description, most=255)
        if not scopes:
            faults.scopes(scopes, ())
        faults.settle()
        if user is not None:
            self._desk.need(user)
        now, secret = self._desk.ctx.now(), self._desk.ctx.entropy(_SECRET)
        token = Token(
            oid=self._desk.ctx.new_oid(),
            user=user,
            description=description,
            scopes=tuple(scopes),
            created_at=now,
            expires_at=None if seconds is None else now + seconds,
        )
        await self._store.add_token(token, hashlib.sha256(secret).digest())
        return IssuedToken(token, (token.oid + secret).hex())

    def verify(self, text: str) -> Bearer:
        """InvalidToken if a text is no token, its time is over, or its user is disabled."""
        oid, secret = _split(text)
        kept = self._store.token(oid)
        # an unknown id is compared with something too
        token, hashed = kept or (None, bytes(hashlib.sha256().digest_size))
        fits = hmac.compare_digest(hashed, hashlib.sha256(secret).digest())
        if token is None or not fits or (token.expires_at is not None and token.expires_at <= self._desk.ctx.now()):
            raise _invalid()
        account = None if token.user is None else self._store.account(token.user)
        if token.user is not None and (account is None or account.disabled):
            raise _invalid()
        return Bearer(token, account)

    def listed(self, user: bytes | None) -> list[Token]:
        """A user's tokens, or with None those of no user."""
        return self._store.tokens(None if user is None else self._desk.need(user).id)

    async def revoke(self, user: bytes | None, oid: bytes) -> None:
        """End a token; InvalidToken if the user has none of this id."""
        if not await self._store.remove_token(None if user is None else self._desk.need(user).id, oid):
            raise _invalid()


def _split(text: str) -> tuple[bytes, bytes]:
    if len(text) != _LENGTH or not text.isalnum():  # fromhex would skip blanks
        raise _invalid()
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raise _invalid() from None
    return raw[:_ID], raw[_ID:]


def _invalid() -> InvalidToken:
    return InvalidToken("Invalid accessToken value")
