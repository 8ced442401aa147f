"""Who an address text means, and what the user wrote down of the people behind them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from qmail_core.codec import address as addresses
from qmail_core.engine.context import Context
from qmail_core.errors import NotFound
from qmail_core.model import Address, Contact

_SERIAL = re.compile(r"0*[0-9]{1,10}")


class People:
    """The contacts of one engine."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._store = ctx.store.contacts

    def resolve(self, text: str) -> Address:
        """The mailbox a text means; AddressError with a short reason if none."""
        return addresses.parse(text, self._lookup)

    def _lookup(self, text: str) -> Address | None:
        found = self._store.find(text)
        digits = text.rpartition("#")[2]  # all of a text without one
        if found is None and _SERIAL.fullmatch(digits) and int(digits) <= addresses.MAX_SERIAL:
            found = self._store.by_serial(int(digits))
        return found.address if found is not None else None

    def find(self, address: Address) -> Contact | None:
        """What is known of an address."""
        return self._store.by_address(address)

    def by_serial(self, serial: int) -> Contact | None:
        """What is known of a serial number, whatever its denomination."""
        return self._store.by_serial(serial)

    def listed(self, limit: int = 1000, offset: int = 0, words: str = "") -> Sequence[Contact]:
        """Contacts in the order of their texts."""
        return self._store.listed(limit, offset, words)

    def popular(self, limit: int = 10) -> Sequence[Contact]:
        """Favourites first, then those written to most."""
        return self._store.popular(limit)

    def count(self) -> int:
        """How many contacts there are."""
        return self._store.count()

    async def add(self, contact: Contact) -> Contact:
        """Add or change a contact; without a text it is called by its canonical address."""
        if not contact.text:
            contact = msgspec.structs.replace(contact, text=addresses.render(contact.address))
        await self._store.add(contact, self._ctx.now())
        kept = self._store.by_address(contact.address)
        if kept is None:
            raise NotFound("Contact not found")  # removed in the same moment
        return kept

    async def favor(self, serial: int, favorite: bool) -> Contact:
        """Mark a favourite, or not; NotFound if nobody has that serial number."""
        return await self._store.favor(serial, favorite, self._ctx.now())

    async def remove(self, serial: int) -> None:
        """NotFound if nobody has that serial number."""
        await self._store.remove(serial)
