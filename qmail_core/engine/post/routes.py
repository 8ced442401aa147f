"""Where mail for an address goes: to a user of this store, over the network, or to the relay."""

from __future__ import annotations

from qmail_core.codec.mime import Person
from qmail_core.engine.accounts.rules import normal_address
from qmail_core.engine.accounts.users import Users
from qmail_core.engine.context import Context
from qmail_core.engine.letters import NETWORK_DOMAIN, routable
from qmail_core.engine.people import People
from qmail_core.errors import AddressError
from qmail_core.model import Address
from qmail_core.store.accounts import Account

Route = Account | Address | str  # a user here, a mailbox of the network, an address elsewhere


class Routes:
    """Tells addresses apart."""

    def __init__(self, ctx: Context, users: Users, people: People) -> None:
        self._ctx = ctx
        self._users = users
        self._people = people

    def find(self, text: str) -> Route:
        """Where mail for an address goes; AddressError if nowhere."""
        text = text.strip()
        here = self.here(text)
        if here is not None:
            return here
        local, _, domain = text.rpartition("@")
        if domain.lower() == NETWORK_DOMAIN:
            return self._unfold(local)
        try:
            return self._people.resolve(text)
        except AddressError:
            normal = normal_address(text)
            if normal is None:
                raise
            return normal

    def here(self, text: str) -> Account | None:
        """The user here whose address it is."""
        return self._users.recipient(text) if "@" in text.strip("@") else None

    def _unfold(self, local: str) -> Address:
        """The mailbox behind the form headers have, see `letters.routable`."""
        for text in (f"@{local}", local.replace(".", " ")):
            try:
                return self._people.resolve(text)
            except AddressError:
                continue
        return self._people.resolve(local)

    def account(self, user: int) -> Account:
        """A user by number."""
        return self._users.get(self._ctx.store.mailboxes.oid_of(user))

    def own(self, account: Account) -> list[str]:
        """The addresses of a user, the main one first."""
        rows = self._ctx.store.accounts.addresses(account.id)
        return [row.address for row in sorted(rows, key=lambda row: not row.main)]

    def writer(self, account: Account, wanted: str = "", name: str = "") -> Person:
        """Whom mail of a user comes from: the wanted address if it is the user's own, else the main one."""
        own = self.own(account)
        known = normal_address(wanted)
        ordinary = [address for address in own if normal_address(address) is not None]
        chosen = known if known in own else next(iter([*ordinary, *own]), f"{account.username}@{NETWORK_DOMAIN}")
        return Person(name or account.name, routable(chosen or ""))
