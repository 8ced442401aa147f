"""What the parts of the accounts share: store, keys, passwords; who is meant, and who asks."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from msgspec import Struct

from qmail_core.engine.accounts.keys import Keys
from qmail_core.engine.accounts.passwords import Passwords
from qmail_core.engine.accounts.rules import Faults, normal_address, normal_ip
from qmail_core.engine.context import Context
from qmail_core.errors import RateLimited, UserNotFound
from qmail_core.store.accounts import Account, Entry, Gate

UNKNOWN = "This user does not exist"
_SPAN = 5 * 60  # seconds failures are counted in


class Origin(Struct, frozen=True):
    """Where a request came from, as far as it is known."""

    ip: str = ""
    session: str = ""

    def check(self, faults: Faults) -> None:
        """Its rules."""
        if self.ip and normal_ip(self.ip) is None:
            faults.add("ip", "must be a valid ip address of one of the following versions [ipv4, ipv6]")
        faults.text("sess", self.session, most=255)


NOWHERE = Origin()


class Desk:
    """Shared by the parts; holds no story of its own."""

    def __init__(self, ctx: Context, passwords: Passwords) -> None:
        self.ctx = ctx
        self.store = ctx.store.accounts
        self.keys = Keys(ctx.config.data, ctx.entropy)
        self.passwords = passwords

    def need(self, oid: bytes, otherwise: str = UNKNOWN) -> Account:
        """A user; UserNotFound with the words of the call if there is none."""
        account = self.store.account(oid)
        if account is None:
            raise UserNotFound(otherwise)
        return account

    def spelling(self, text: str) -> str:
        """The one form of a username or address, as resolve takes it: dots do not make another name."""
        text = text.strip().lower()
        return (normal_address(text) or text) if "@" in text else text.replace(".", "")

    def resolve(self, text: str) -> Account | None:
        """Whoever has this username or address."""
        text = text.strip().lower()
        if "@" not in text and (named := self.store.account_named(text)) is not None:
            return named
        return self.store.account_at(normal_address(text) or text)

    def entry(self, action: str, origin: Origin, **detail: str) -> Entry:
        """A row of the log."""
        place = {"ip": normal_ip(origin.ip) or "", "sess": origin.session}
        known = {name: value for name, value in (detail | place).items() if value}
        return Entry(self.ctx.new_oid(), action, self.ctx.now(), known)

    def pass_gates(self, gates: Sequence[Gate]) -> None:
        """RateLimited if one is closed."""
        seconds = self.store.closed_for(gates, self.ctx.now())
        if seconds:
            raise RateLimited(seconds)


def login_gates(who: str, origin: Origin) -> list[Gate]:
    """10 failures in 5 minutes for whoever is tried, 30 for whoever tries."""
    return _gates("login", who, 10, origin, 30)


def totp_gates(who: str, origin: Origin) -> list[Gate]:
    """5 failures in 5 minutes, for either."""
    return _gates("totp", who, 5, origin, 5)


def _gates(kind: str, who: str, most: int, origin: Origin, most_of_place: int) -> list[Gate]:
    gates = [Gate(f"{kind} user {who}", most, _SPAN)]
    place = _place(origin.ip)
    return [*gates, Gate(f"{kind} ip {place}", most_of_place, _SPAN)] if place else gates


def _place(ip: str) -> str:
    """Whom an address is counted for: in IPv6 all of a /64, because one customer has them all."""
    found = normal_ip(ip)
    if found is None or ":" not in found:
        return found or ""
    return str(ipaddress.ip_network((found.partition("%")[0], 64), strict=False))
