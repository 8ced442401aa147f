"""Stripes by GUID, file type and page: who owns them, what was paid, and when they go."""

from __future__ import annotations

import itertools
from typing import Protocol

from msgspec import Struct
from typing_extensions import Buffer

from qmail_core.raida.state.medium import MemoryTables


class StripeState(Protocol):
    """Stripes of a node."""

    def put_page(self, guid: bytes, file_type: int, page: int, data: Buffer, now: float, expires: float | None) -> None:
        """Store one page, replacing an older one; `expires` None is never.

        `data` MUST NOT change before it is committed or taken back. A reader, before and after a crash, MUST see the
        old page or the new one, whole.
        """

    def page(self, guid: bytes, file_type: int, page: int, now: float = 0.0) -> bytes | None:
        """One page as it was stored, or None. A page that has expired by `now` MUST be None, swept or not."""

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

    def sweep_pages(self, now: float, limit: int) -> int:
        """Remove up to `limit` pages that have expired; how many it was.

        Owner and payments of a GUID MUST go with the last that is kept of it, be it a page, a transfer or an object.
        Work MUST be bounded by `limit`.
        """


class _Page(Struct, frozen=True):
    data: bytes
    expires: float | None

    def is_over(self, now: float) -> bool:
        return self.expires is not None and self.expires <= now


class MemoryStripes(MemoryTables):
    """StripeState in dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self._pages: dict[bytes, dict[tuple[int, int], _Page]] = {}
        self._owners: dict[bytes, bytes] = {}
        self._payments: dict[tuple[bytes, int], tuple[bytes, int]] = {}

    def put_page(self, guid: bytes, file_type: int, page: int, data: Buffer, now: float, expires: float | None) -> None:
        self._put(self._row(self._pages, guid), (file_type, page), _Page(bytes(data), expires))

    def page(self, guid: bytes, file_type: int, page: int, now: float = 0.0) -> bytes | None:
        found = self._pages.get(guid, {}).get((file_type, page))
        return None if found is None or found.is_over(now) else found.data

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

    def sweep_pages(self, now: float, limit: int) -> int:
        every = ((guid, where, page) for guid, pages in self._pages.items() for where, page in pages.items())
        over = list(itertools.islice(((guid, where) for guid, where, page in every if page.is_over(now)), limit))
        for guid, where in over:
            self._put(self._pages[guid], where, None)
            if not self._pages[guid]:
                self._put(self._pages, guid, None)
                self._let_go(guid)
        return len(over)

    def _keeps(self, guid: bytes) -> bool:
        return bool(self._pages.get(guid)) or super()._keeps(guid)

    def _let_go(self, guid: bytes) -> None:
        if self._keeps(guid):
            return
        self._put(self._owners, guid, None)
        for unit in range(256):
            if (guid, unit) in self._payments:
                self._put(self._payments, (guid, unit), None)
