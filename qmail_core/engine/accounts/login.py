"""Who is it: a name, a password, and what it is asked for.

The master password is tried first, then the application passwords. Scopes are decided here and nowhere else: the
scope `master` never takes an application password, and a user with a second factor opens the mail protocols with
nothing else.
"""

from __future__ import annotations

import hashlib
import hmac
import re

from msgspec import Struct

from qmail_core.engine.accounts.desk import NOWHERE, Desk, Origin, login_gates
from qmail_core.engine.accounts.passwords import MAX_PASSWORD
from qmail_core.engine.accounts.rules import Faults
from qmail_core.errors import AuthFailed, InvalidAuthScope
from qmail_core.store.accounts import Account, Gate

MASTER = "master"
PROTOCOLS = ("imap", "pop3", "smtp")
_ASP = re.compile(r"[a-z]{16}")


class Authenticated(Struct, frozen=True):
    """A user who has proved to be one."""

    account: Account
    scope: str
    require2fa: bool  # a code of the second factor is to be asked for, too
    asp: bytes | None = None  # the application password it was


class _Finding(Struct, frozen=True):
    """What a password turned out to be."""

    fits: bool = False
    allowed: bool = False  # for the scope that was asked for
    asp: bytes | None = None


class Login:
    """Authentication for every protocol."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._store = desk.store

    async def authenticate(
        self, username: str, password: str, *, scope: str = MASTER, protocol: str = "API", origin: Origin = NOWHERE
    ) -> Authenticated:
        """Authenticate by username or any address.

        raises  AuthFailed; InvalidAuthScope if the password is right for something else; RateLimited
        """
        _check(username, password, scope, protocol, origin)
        async with self._desk.passwords.turn():
            account = self._desk.resolve(username)
            gates = login_gates(self._counted(account, username), origin)
            self._desk.pass_gates(gates)
            found = await self._look(account, password, scope)
            await self._record(account, found, scope, protocol, origin, [] if found.fits else gates)
        if account is None or not found.fits or account.disabled:
            raise AuthFailed("Authentication failed")
        if not found.allowed:
            raise InvalidAuthScope("Authentication failed. Invalid scope")
        return Authenticated(account, scope, account.enabled2fa and found.asp is None, found.asp)

    def _counted(self, account: Account | None, username: str) -> str:
        """Whom failures are counted for; a name nobody has is counted as well, or the count would tell who exists."""
        if account is not None:
            return account.oid.hex()
        return hashlib.sha256(self._desk.spelling(username).encode("utf-8", "surrogatepass")).hexdigest()

    async def _look(self, account: Account | None, password: str, scope: str) -> _Finding:
        """Try the master password, then the others; whoever is unknown takes as long."""
        if account is None or not account.activated:
            await self._desk.passwords.verify("", password)
            return _Finding()
        if await self._desk.passwords.verify(self._store.credentials(account.id).password, password):
            return _Finding(True, scope == MASTER or not account.enabled2fa)
        return self._look_asps(account, password, scope)

    def _look_asps(self, account: Account, password: str, scope: str) -> _Finding:
        text = password.replace(" ", "").lower()
        if scope == MASTER or not _ASP.fullmatch(text):
            return _Finding()
        selector, hashed = self._desk.keys.fingerprint(text, account.oid)
        for asp, kept in self._store.selected_asps(account.id, selector):
            if hmac.compare_digest(kept, hashed):
                return _Finding(True, "*" in asp.scopes or scope in asp.scopes, asp.oid)
        return _Finding()

    async def _record(
        self,
        account: Account | None,
        found: _Finding,
        scope: str,
        protocol: str,
        origin: Origin,
        failed: list[Gate],
    ) -> None:
        if account is None:
            await self._store.record_login(None, None, failed, self._desk.ctx.now())
            return
        succeeded = found.fits and found.allowed
        entry = self._desk.entry(
            "authentication",
            origin,
            result="disabled" if found.fits and account.disabled else "success" if succeeded else "fail",
            source="asp" if found.asp else "master",
            asp=found.asp.hex() if found.asp else "",
            protocol=protocol,
            requiredScope=scope,
        )
        used = found.asp if succeeded and not account.disabled else None
        await self._store.record_login(account.id, entry, failed, self._desk.ctx.now(), asp=used)


def _check(username: str, password: str, scope: str, protocol: str, origin: Origin) -> None:
    faults = Faults()
    faults.text("username", username, least=1)
    faults.text("password", password, least=1, most=MAX_PASSWORD)
    faults.among("scope", scope, (MASTER, *PROTOCOLS))
    faults.text("protocol", protocol, least=1, most=100)
    origin.check(faults)
    faults.settle()
