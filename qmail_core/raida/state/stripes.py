"""Stripes by GUID, file type and page: who owns them and what was paid."""

from __future__ import annotations

from typing import Protocol

from typing_extensions import Buffer

from qmail_core.raida.state.medium import MemoryTables


class StripeState(Protocol):
    """Stripes of a node."""

    def put_page(self, guid: bytes, file_type: int, page: int, data: Buffer, now: float, expires: float | None) -> None:
        """Store one page, replacing an older one; `expires` None is never.

        MUST copy `data`. A reader, before and after a crash, MUST see the old page or the new one, whole.
        """

    def page(self, guid: bytes, file_type: int, page: int) -> bytes | None:
        """One page as it was stored, or None."""

    def owner(self, guid: bytes) -> bytes | None:
        """The coin that first uploaded to this GUID."""

    def claim(self, guid: bytes, owner: bytes) -> None:
        """Record the owner of a GUID. An owner already recorded MUST stay."""

    def drop(self, guid: bytes) -> None:
        """Lose all pages of a GUID, keeping owner and payments: for tests and demonstrations."""

    def paid(self, guid: bytes, unit: int) -> bytes | None:
        """The locker key that paid for one unit of a GUID."""

    def record_payment(self, guid: bytes, unit: int, key: bytes, value: int) -> None:
        """Remember who paid for a unit, and how much in whole CC."""


class MemoryStripes(MemoryTables):
    """StripeState in dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self._pages: dict[bytes, dict[tuple[int, int], bytes]] = {}
        self._owners: dict[bytes, bytes] = {}
        self._payments: dict[tuple[bytes, int], tuple[bytes, int]] = {}

    def put_page(self, guid: bytes, file_type: int, page: int, data: Buffer, now: float, expires: float | None) -> None:
        self._put(self._pages.setdefault(guid, {}), (file_type, page), bytes(data))

    def page(self, guid: bytes, file_type: int, page: int) -> bytes | None:
        return self._pages.get(guid, {}).get((file_type, page))

    def owner(self, guid: bytes) -> bytes | None:
        return self._owners.get(guid)

    def claim(self, guid: bytes, owner: bytes) -> None:
        if guid not in self._owners:
            self._put(self._owners, guid, owner)

    def drop(self, guid: bytes) -> None:
        pages = self._pages.get(guid, {})
        for key in list(pages):
            self._put(pages, key, None)

    def paid(self, guid: bytes, unit: int) -> bytes | None:
        row = self._payments.get((guid, unit))
        return row[0] if row else None

    def record_payment(self, guid: bytes, unit: int, key: bytes, value: int) -> None:
        self._put(self._payments, (guid, unit), (key, value))
