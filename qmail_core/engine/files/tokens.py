"""Bearer tokens of the file-transfer API: 60 characters, shown once, kept as SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from msgspec import Struct

from qmail_core.engine.context import Context
from qmail_core.engine.files.disk import to_the_end
from qmail_core.errors import NotFound, UsageError
from qmail_core.model import Token
from qmail_core.store.mailbox import HOME

TOKEN_LENGTH = 60
KEY_LENGTH = 32
MAX_NAME = 100
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Owner(Struct, frozen=True):
    """Who speaks: a user by way of one token. Prints without the token."""

    user: int
    token: int
    secret: bytes  # the token itself: it opens the uploads it began

    def __repr__(self) -> str:
        return f"Owner(user {self.user}, token {self.token})"


def drawn(entropy: Callable[[int], bytes], length: int) -> str:
    """Random letters and digits, each as likely as any other."""
    found = ""
    while len(found) < length:
        found += "".join(_LETTERS[byte & 63] for byte in entropy(length) if byte & 63 < len(_LETTERS))
    return found[:length]


def new_id(entropy: Callable[[int], bytes]) -> bytes:
    """A random UUID, marked as one (RFC 9562, version 4)."""
    raw = bytearray(entropy(16))
    raw[6], raw[8] = raw[6] & 0x0F | 0x40, raw[8] & 0x3F | 0x80
    return bytes(raw)


def digest(secret: str) -> bytes:
    """What the store keeps of a secret nobody can guess."""
    return hashlib.sha256(secret.encode()).digest()


class Tokens:
    """The tokens of one engine's users."""

    def __init__(self, ctx: Context, drop: Callable[[bytes], None]) -> None:
        self._ctx = ctx
        self._store = ctx.store.files
        self._drop = drop  # the file of an upload whose row has gone

    async def create(self, name: str, user: int = HOME) -> tuple[Token, str]:
        """A new token and its text, which nobody can ask for again."""
        if not 1 <= len(name) <= MAX_NAME:
            raise UsageError(f"A token has a name of 1 to {MAX_NAME} characters.")
        self._store.person(user)
        text = drawn(self._ctx.entropy, TOKEN_LENGTH)
        return await self._store.add_token(user, name, digest(text), self._ctx.now()), text

    def listed(self) -> Sequence[Token]:
        """All tokens, oldest first."""
        return self._store.tokens()

    async def revoke(self, token: int) -> None:
        """End a token and its unfinished uploads; NotFound if there is none."""
        await to_the_end(self._revoke(token))

    async def _revoke(self, token: int) -> None:
        for upload in await self._store.drop_token(token):
            self._drop(upload)

    def owner(self, text: str) -> Owner:
        """Who a token is; NotFound if nobody."""
        # looked up by its hash: how long that takes says nothing of the token
        found = self._store.token(digest(text)) if len(text) == TOKEN_LENGTH else None
        if found is None:
            raise NotFound("Unauthenticated.")
        return Owner(found.user, found.id, text.encode())
