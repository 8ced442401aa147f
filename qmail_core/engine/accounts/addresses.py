"""Addresses of users: any number, one of them the main one."""

from __future__ import annotations

from qmail_core.engine.accounts.desk import Desk
from qmail_core.engine.accounts.rules import Faults
from qmail_core.errors import AddressNotFound, ChangeNotAllowed
from qmail_core.store.accounts import AddressState, Page


class Addresses:
    """The addresses of one engine's users."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._store = desk.store

    def page(
        self, limit: int = 20, *, query: str = "", after: bytes | None = None, before: bytes | None = None
    ) -> Page[AddressState]:
        """Everybody's addresses by id; with `query`, those that contain it."""
        query = query.strip()
        faults = Faults()
        faults.text("query", query, most=255)
        faults.settle()
        return self._store.all_addresses(limit, words=query, after=after, before=before)

    def listed(self, user: bytes) -> list[AddressState]:
        """A user's addresses, in the order of code points."""
        return self._store.addresses(self._desk.need(user).id)

    def get(self, user: bytes, oid: bytes) -> AddressState:
        """AddressNotFound if the user has no such address."""
        found = self._store.address(self._desk.need(user).id, oid)
        if found is None:
            raise AddressNotFound("Invalid or unknown address")
        return found

    async def add(self, user: bytes, address: str, *, main: bool = False) -> bytes:
        """Give a user one more address; AddressExists. Returns its id."""
        faults = Faults()
        normal = faults.address("address", address)
        faults.settle()
        account = self._desk.need(user)
        oid = self._desk.ctx.new_oid()
        await self._store.add_address(account.id, oid, normal, self._desk.ctx.now(), main=main)
        return oid

    async def set_main(self, user: bytes, oid: bytes, *, main: bool = True) -> None:
        """Make an address the main one; there is no way to have none."""
        if not main:
            raise ChangeNotAllowed("Cannot unset main status")
        await self._store.set_main_address(self._desk.need(user).id, oid)

    async def delete(self, user: bytes, oid: bytes) -> None:
        """Take an address from a user; not the main one."""
        await self._store.remove_address(self._desk.need(user).id, oid)
