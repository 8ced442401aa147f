"""Transactions over a node's memory: the protocol, and undo in dictionaries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Transactions(Protocol):
    """How changes become durable, or are taken back.

    Every method of a node's state MUST raise StoreUnavailable when its medium fails, and MUST then leave things so that
    `undo` or `rollback` restores a consistent state. Reads MUST see uncommitted changes.
    """

    @property
    def waits(self) -> bool:
        """Whether a commit takes as long as a medium does; then it may run in another thread, while nobody else uses
        the state."""

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


class MemoryTables:
    """Tables in dictionaries: rows are immutable values and change through `_put`, which keeps the way back."""

    waits = False

    def __init__(self) -> None:
        self._back: list[Callable[[], object]] = []
        self._marked = 0

    def _keeps(self, guid: bytes) -> bool:
        """Whether anything is kept of a GUID; a topic that does has its own."""
        return False

    def _let_go(self, guid: bytes) -> None:
        """Something of a GUID was removed: what only accompanies it goes with the last; a topic has its own."""

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

    def _row(self, table: dict[Any, dict[Any, Any]], key: object) -> dict[Any, Any]:
        """The table inside a table, made if there is none."""
        if key not in table:
            self._put(table, key, {})
        return table[key]

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
