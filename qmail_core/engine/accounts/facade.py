"""Accounts as surfaces see them: `engine.accounts`. Users are named by object id; each part is a module of its own."""

from __future__ import annotations

from qmail_core.codec import address as addresses
from qmail_core.engine.accounts.addresses import Addresses
from qmail_core.engine.accounts.asps import Asps
from qmail_core.engine.accounts.desk import NOWHERE, Desk, Origin
from qmail_core.engine.accounts.login import MASTER, Authenticated, Login
from qmail_core.engine.accounts.passwords import Passwords
from qmail_core.engine.accounts.rules import Faults
from qmail_core.engine.accounts.tokens import Tokens
from qmail_core.engine.accounts.totp import Totp
from qmail_core.engine.accounts.users import Users
from qmail_core.engine.context import Context
from qmail_core.errors import ConfigError, InputInvalid
from qmail_core.store.accounts import Entry, Page

LOG_DAYS = 30
_SWEEP = 600  # seconds between sweeps


class Accounts:
    """Users of one engine's mailboxes, and what opens them.

    users, addresses, asps, totp, tokens  the parts
    """

    def __init__(self, ctx: Context, passwords: Passwords | None = None) -> None:
        self._ctx = ctx
        desk = self._desk = Desk(ctx, passwords or Passwords(ctx.entropy))
        self.users = Users(desk)
        self.addresses = Addresses(desk)
        self.asps = Asps(desk)
        self.totp = Totp(desk)
        self.tokens = Tokens(desk)
        self._login = Login(desk)
        self._swept = 0

    async def start(self) -> None:
        """Name the engine's own user and list its address."""
        ctx, faults = self._ctx, Faults()
        username = faults.username(ctx.config.username)
        try:
            faults.settle()
        except InputInvalid as error:
            raise ConfigError(error.message) from None
        text = addresses.render(ctx.address)
        await ctx.store.accounts.adopt_home(username, text, ctx.new_oid(), ctx.new_oid(), ctx.now())

    async def authenticate(
        self, username: str, password: str, *, scope: str = MASTER, protocol: str = "API", origin: Origin = NOWHERE
    ) -> Authenticated:
        """Who it is, by username or any address; AuthFailed, InvalidAuthScope, RateLimited."""
        return await self._login.authenticate(username, password, scope=scope, protocol=protocol, origin=origin)

    def authlog(
        self,
        user: bytes,
        limit: int = 20,
        *,
        action: str | None = None,
        after: bytes | None = None,
        before: bytes | None = None,
    ) -> Page[Entry]:
        """A user's authentication log of the last 30 days, newest first."""
        account = self._desk.need(user)
        return self._desk.store.log(account.id, self._oldest(), limit, action=action, after=after, before=before)

    async def sweep(self) -> None:
        """Forget what is over, now and then."""
        now = self._ctx.now()
        if not self._swept <= now < self._swept + _SWEEP:
            self._swept = now
            await self._desk.store.forget(self._oldest(), now)

    def close(self) -> None:
        """End the threads that hash."""
        self._desk.passwords.close()

    def _oldest(self) -> int:
        return self._ctx.now() - LOG_DAYS * 86400
