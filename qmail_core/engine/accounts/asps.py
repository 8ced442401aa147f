"""Application-specific passwords: sixteen letters that are shown once and open some protocols."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from qmail_core.engine.accounts.desk import NOWHERE, Desk, Origin
from qmail_core.engine.accounts.login import PROTOCOLS
from qmail_core.engine.accounts.rules import Faults
from qmail_core.errors import AspNotFound
from qmail_core.store.accounts import Asp

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_LENGTH = 16
_ALL = ("*",)


class NewAsp(Struct, frozen=True):
    """A new application password. Prints without it."""

    oid: bytes
    password: str

    def __repr__(self) -> str:
        return f"NewAsp({self.oid.hex()})"


class Asps:
    """The application passwords of one engine's users."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._store = desk.store

    def listed(self, user: bytes) -> list[Asp]:
        """A user's application passwords by id."""
        return self._store.asps(self._desk.need(user).id)

    async def create(
        self, user: bytes, description: str, scopes: Sequence[str] = _ALL, origin: Origin = NOWHERE
    ) -> NewAsp:
        """Make one; `*` is all scopes."""
        description = description.strip()
        faults = Faults()
        faults.text("description", description, least=1, most=255)
        faults.scopes(scopes, (*PROTOCOLS, *_ALL))
        origin.check(faults)
        faults.settle()
        account = self._desk.need(user, "User not found")
        password = _draw(self._desk.ctx.entropy)
        asp = Asp(
            oid=self._desk.ctx.new_oid(),
            description=description,
            scopes=_kept(scopes),
            created_at=self._desk.ctx.now(),
        )
        entry = self._desk.entry("create asp", origin, asp=asp.oid.hex(), result="success")
        await self._store.add_asp(account.id, asp, *self._desk.keys.fingerprint(password, account.oid), entry)
        return NewAsp(asp.oid, password)

    async def delete(self, user: bytes, oid: bytes, origin: Origin = NOWHERE) -> None:
        """AspNotFound if the user has no such application password."""
        faults = Faults()
        origin.check(faults)
        faults.settle()
        account = self._desk.need(user)
        entry = self._desk.entry("delete asp", origin, asp=oid.hex(), result="success")
        if not await self._store.remove_asp(account.id, oid, entry):
            raise AspNotFound("Application Specific Password was not found")


def _kept(scopes: Sequence[str]) -> tuple[str, ...]:
    """Scopes as they are stored: sorted, or `*` if they are all."""
    return _ALL if "*" in scopes or set(scopes) == set(PROTOCOLS) else tuple(sorted(scopes))


def _draw(entropy: Callable[[int], bytes]) -> str:
    """Letters, each as likely as any other."""
    letters = ""
    fair = 256 - 256 % len(_LETTERS)
    while len(letters) < _LENGTH:
        letters += "".join(_LETTERS[byte % len(_LETTERS)] for byte in entropy(_LENGTH) if byte < fair)
    return letters[:_LENGTH]
