"""User records with an index over their names, and the lists of senders mailboxes keep."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from itertools import islice
from typing import Protocol

from msgspec import Struct

from qmail_core.raida.state.medium import MemoryTables


class DirectoryState(Protocol):
    """The directory of a node. Records are opaque here; names come folded, as UTF-8 ready for comparison."""

    def user(self, mailbox: bytes) -> bytes | None:
        """The mailbox's record as it was put."""

    def put_user(self, mailbox: bytes, record: bytes, first: bytes, last: bytes) -> None:
        """Put a record, replacing an older one, to be found under these names."""

    def remove_user(self, mailbox: bytes) -> None:
        """Forget a record, if there is one."""

    def find_users(self, first: bytes | None, last: bytes | None, limit: int) -> list[bytes]:
        """Records whose names start so (None: with whatever), at most `limit`.

        Ordered by the name asked for with the longer prefix (the first name when they are equally long), then by the
        other name, then by mailbox. MUST read an index over that name, not every record.
        """

    def listed(self, mailbox: bytes, sender: bytes) -> int | None:
        """The kind of list a sender is on."""

    def set_listed(self, mailbox: bytes, entries: Iterable[tuple[bytes, int | None]]) -> None:
        """Move senders to a list, or off both (None)."""

    def list_entries(self, mailbox: bytes) -> list[tuple[bytes, int]]:
        """Every listed sender and the kind of list, in selector order."""


class _User(Struct, frozen=True):
    record: bytes
    first: bytes
    last: bytes


_Index = list[tuple[bytes, bytes, bytes]]  # leading name, other name, mailbox; sorted
_END = b"\xff"  # above every byte of UTF-8


class MemoryDirectory(MemoryTables):
    """DirectoryState in dictionaries and sorted lists."""

    def __init__(self) -> None:
        super().__init__()
        self._users: dict[bytes, _User] = {}
        self._by_first: _Index = []
        self._by_last: _Index = []
        self._lists: dict[bytes, dict[bytes, int]] = {}

    def user(self, mailbox: bytes) -> bytes | None:
        found = self._users.get(mailbox)
        return found.record if found else None

    def put_user(self, mailbox: bytes, record: bytes, first: bytes, last: bytes) -> None:
        self.remove_user(mailbox)
        user = _User(record, first, last)
        self._put(self._users, mailbox, user)
        self._back.append(lambda: self._unindex(mailbox, user))
        self._index(mailbox, user)

    def remove_user(self, mailbox: bytes) -> None:
        old = self._users.get(mailbox)
        if old is not None:
            self._put(self._users, mailbox, None)
            self._back.append(lambda: self._index(mailbox, old))
            self._unindex(mailbox, old)

    def _index(self, mailbox: bytes, user: _User) -> None:
        insort(self._by_first, (user.first, user.last, mailbox))
        insort(self._by_last, (user.last, user.first, mailbox))

    def _unindex(self, mailbox: bytes, user: _User) -> None:
        for index, row in (
            (self._by_first, (user.first, user.last, mailbox)),
            (self._by_last, (user.last, user.first, mailbox)),
        ):
            del index[bisect_left(index, row)]

    def find_users(self, first: bytes | None, last: bytes | None, limit: int) -> list[bytes]:
        by_last = first is None or (last is not None and len(last) > len(first))
        index, lead, other = (self._by_last, last, first) if by_last else (self._by_first, first, last)
        low, high = lead or b"", (lead or b"") + _END
        start, end = bisect_left(index, (low,)), bisect_left(index, (high,))
        rows = (index[at] for at in range(start, end))
        found = (mailbox for _, name, mailbox in rows if name.startswith(other or b""))
        return [self._users[mailbox].record for mailbox in islice(found, limit)]

    def listed(self, mailbox: bytes, sender: bytes) -> int | None:
        return self._lists.get(mailbox, {}).get(sender)

    def set_listed(self, mailbox: bytes, entries: Iterable[tuple[bytes, int | None]]) -> None:
        kept = self._lists.setdefault(mailbox, {})
        for sender, kind in entries:
            self._put(kept, sender, kind)

    def list_entries(self, mailbox: bytes) -> list[tuple[bytes, int]]:
        return sorted(self._lists.get(mailbox, {}).items())
