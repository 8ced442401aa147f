"""What one node remembers, behind one protocol, and that protocol in dictionaries.

Rule: a change is visible at once to the node that made it and durable only after `commit()`. All changes since the last
commit become durable together or, after a crash, not at all. A selector is DN SN, 5 bytes; a mailbox is the selector
of its identity coin; an authenticity number (AN) or locker key is 16 bytes. Times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, Protocol

from msgspec import Struct
from typing_extensions import Buffer

LOCKER_TAIL = b"\xff\xff\xff\xff"  # QMail wire B.5: only such ANs are lockers, whatever else two coins may share

ListWord = Literal["white", "black"]


class InboxRule(Protocol):
    """What a mailbox asks of senders (QMail wire E.1)."""

    @property
    def fee(self) -> int:
        """Inbox fee in 10^-8 CC; 0 or less is free."""

    @property
    def class_rejection(self) -> int:
        """Lowest sender denomination accepted, signed; 0 accepts all."""


class NodeState(Protocol):
    """The memory of one node. Used from one thread at a time.

    Every method MUST raise StoreUnavailable when its medium fails, and MUST then leave things so that `undo` or
    `rollback` restores a consistent state. Reads MUST see uncommitted changes.
    """

    # ------------------------------------------------------------------ transactions
    def mark(self) -> None:
        """Begin one request. MUST be cheap when the request changes nothing."""

    def undo(self) -> None:
        """Take back every change since `mark`, and only those. MUST NOT raise; if the medium cannot, `commit` MUST."""

    def dirty(self) -> bool:
        """Whether there is anything to commit (or a failure that only `commit` can report)."""

    def commit(self) -> None:
        """Make all changes since the last commit durable together.

        MUST NOT return before the medium confirmed. On StoreUnavailable nothing of them is durable and the caller
        MUST call `rollback`.
        """

    def rollback(self) -> None:
        """Take back every change since the last commit. MUST NOT raise."""

    def close(self) -> None:
        """Release the medium; uncommitted changes are dropped. Every later call MUST fail."""

    # ------------------------------------------------------------------ coins
    def an(self, selector: bytes) -> bytes | None:
        """The AN held for a coin; None if the coin is unknown here."""

    def set_ans(self, coins: Iterable[tuple[bytes, bytes]]) -> None:
        """Record (selector, AN) pairs, new or changed."""

    def locker(self, key: bytes) -> list[bytes]:
        """Coins whose AN equals a locker key, in selector order. MUST be empty for a key without a locker's ending."""

    def locker_by_prefix(self, prefix: bytes) -> bytes | None:
        """The lowest locker key in use that starts with these five bytes."""

    def earn(self, coins: Iterable[tuple[bytes, bytes]]) -> None:
        """Record (selector, fresh AN) pairs as the node's own: as `set_ans`, and listed by `earned`."""

    def earned(self) -> list[tuple[bytes, bytes]]:
        """(selector, AN) of coins the node earned and still holds, in selector order."""

    # ------------------------------------------------------------------ stripes
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

    # ------------------------------------------------------------------ payments
    def paid(self, guid: bytes, unit: int) -> bytes | None:
        """The locker key that paid for one unit of a GUID."""

    def record_payment(self, guid: bytes, unit: int, key: bytes, value: int) -> None:
        """Remember who paid for a unit, and how much in whole CC."""

    # ------------------------------------------------------------------ tells
    def add_tell(self, mailbox: bytes, key: bytes, record: bytes, now: float) -> None:
        """Queue a record for a mailbox. A key already known there MUST change nothing, even after `forget_tells`."""

    def has_tell(self, mailbox: bytes, key: bytes) -> bool:
        """Whether this mailbox ever got a tell with this key."""

    def pending_tells(self, mailbox: bytes) -> int:
        """Records kept for a mailbox, served or not."""

    def tells(self, mailbox: bytes, since: float, before: float, limit: int) -> list[tuple[int, bytes, int]]:
        """Records to serve, oldest first: (id, record, times served so far).

        Only those that arrived after `since` (0 is all) and were never served, or last served at or before `before`.
        """

    def tells_served(self, ids: Iterable[int], now: float) -> None:
        """Count one more serving of each."""

    def forget_tells(self, ids: Iterable[int]) -> None:
        """Delete the records; their keys stay known."""

    # ------------------------------------------------------------------ the gate
    def inbox_rule(self, mailbox: bytes) -> InboxRule | None:
        """The mailbox's rule, or None if it never set one."""

    def set_inbox_rule(self, mailbox: bytes, fee: int, class_rejection: int) -> None:
        """Set the mailbox's rule."""

    def list_entry(self, mailbox: bytes, sender: bytes) -> ListWord | None:
        """Which of the mailbox's lists the sender is on."""

    def set_list_entry(self, mailbox: bytes, sender: bytes, word: ListWord | None) -> None:
        """Move a sender to a list, or off both."""


# ------------------------------------------------------------------------------------------------------------------


class MemoryRule(Struct, frozen=True):
    """An InboxRule in memory."""

    fee: int
    class_rejection: int


class _Tell(Struct, frozen=True):
    id: int
    record: bytes | None  # None: forgotten, the key stays
    arrived: float
    served: int = 0
    served_at: float = 0.0


class MemoryState:
    """NodeState in dictionaries: nothing survives the process. For tests and examples.

    Every table maps to immutable values and changes through `_put`, which keeps the way back.
    """

    def __init__(self) -> None:
        self._ans: dict[bytes, bytes] = {}
        self._lockers: dict[bytes, dict[bytes, bool]] = {}
        self._earned: dict[bytes, bytes] = {}
        self._pages: dict[bytes, dict[tuple[int, int], bytes]] = {}
        self._owners: dict[bytes, bytes] = {}
        self._payments: dict[tuple[bytes, int], tuple[bytes, int]] = {}
        self._tells: dict[bytes, dict[bytes, _Tell]] = {}
        self._tell_keys: list[tuple[bytes, bytes]] = []  # by tell id; an undone one is never looked up again
        self._rules: dict[bytes, MemoryRule] = {}
        self._lists: dict[tuple[bytes, bytes], ListWord] = {}
        self._back: list[Callable[[], object]] = []
        self._marked = 0

    def _put(self, table: dict[Any, Any], key: object, value: object | None) -> None:
        """Set a row, or remove it (None)."""
        old = table.get(key)
        if old is None:
            self._back.append(lambda: table.pop(key, None))
        else:
            self._back.append(lambda: table.__setitem__(key, old))
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value

    def _go_back(self, length: int) -> None:
        while len(self._back) > length:
            self._back.pop()()

    def mark(self) -> None:
        self._marked = len(self._back)

    def undo(self) -> None:
        self._go_back(self._marked)

    def dirty(self) -> bool:
        return bool(self._back)

    def commit(self) -> None:
        self._back.clear()
        self._marked = 0

    def rollback(self) -> None:
        self._go_back(0)
        self._marked = 0

    def close(self) -> None:
        self.rollback()

    def an(self, selector: bytes) -> bytes | None:
        return self._ans.get(selector)

    def set_ans(self, coins: Iterable[tuple[bytes, bytes]]) -> None:
        for selector, an in coins:
            old = self._ans.get(selector, b"")
            if old.endswith(LOCKER_TAIL):
                self._put(self._lockers[old], selector, None)
            if an.endswith(LOCKER_TAIL):
                self._put(self._lockers.setdefault(an, {}), selector, True)
            self._put(self._ans, selector, an)

    def locker(self, key: bytes) -> list[bytes]:
        return sorted(self._lockers.get(key, ()))

    def locker_by_prefix(self, prefix: bytes) -> bytes | None:
        return min((key for key, coins in self._lockers.items() if coins and key.startswith(prefix)), default=None)

    def earn(self, coins: Iterable[tuple[bytes, bytes]]) -> None:
        for selector, an in coins:
            self.set_ans([(selector, an)])
            self._put(self._earned, selector, an)

    def earned(self) -> list[tuple[bytes, bytes]]:
        return sorted(pair for pair in self._earned.items() if self._ans.get(pair[0]) == pair[1])

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

    def add_tell(self, mailbox: bytes, key: bytes, record: bytes, now: float) -> None:
        box = self._tells.setdefault(mailbox, {})
        if key not in box:
            self._put(box, key, _Tell(len(self._tell_keys), record, now))
            self._tell_keys.append((mailbox, key))

    def has_tell(self, mailbox: bytes, key: bytes) -> bool:
        return key in self._tells.get(mailbox, {})

    def pending_tells(self, mailbox: bytes) -> int:
        return sum(tell.record is not None for tell in self._tells.get(mailbox, {}).values())

    def tells(self, mailbox: bytes, since: float, before: float, limit: int) -> list[tuple[int, bytes, int]]:
        found = [
            (tell.id, tell.record, tell.served)
            for tell in self._tells.get(mailbox, {}).values()
            if tell.record is not None
            and (not since or tell.arrived > since)
            and (not tell.served or tell.served_at <= before)
        ]
        return sorted(found)[:limit]

    def tells_served(self, ids: Iterable[int], now: float) -> None:
        for tell_id in ids:
            box, key, tell = self._find_tell(tell_id)
            self._put(box, key, _Tell(tell.id, tell.record, tell.arrived, tell.served + 1, now))

    def forget_tells(self, ids: Iterable[int]) -> None:
        for tell_id in ids:
            box, key, tell = self._find_tell(tell_id)
            self._put(box, key, _Tell(tell.id, None, tell.arrived, tell.served, tell.served_at))

    def _find_tell(self, tell_id: int) -> tuple[dict[bytes, _Tell], bytes, _Tell]:
        mailbox, key = self._tell_keys[tell_id]
        box = self._tells[mailbox]
        return box, key, box[key]

    def inbox_rule(self, mailbox: bytes) -> InboxRule | None:
        return self._rules.get(mailbox)

    def set_inbox_rule(self, mailbox: bytes, fee: int, class_rejection: int) -> None:
        self._put(self._rules, mailbox, MemoryRule(fee, class_rejection))

    def list_entry(self, mailbox: bytes, sender: bytes) -> ListWord | None:
        return self._lists.get((mailbox, sender))

    def set_list_entry(self, mailbox: bytes, sender: bytes, word: ListWord | None) -> None:
        self._put(self._lists, (mailbox, sender), word)
