"""Coins of one node on disk."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from qmail_core.store.node.medium import Medium

_HELD = 4096  # numbers kept in memory
_LOCKER = "substr(an, 13, 4) = X'FFFFFFFF'"  # a partial index serves only queries that repeat its condition


class CoinTables(Medium):
    """Authenticity numbers, lockers, earnings."""

    schema = f"""
CREATE TABLE IF NOT EXISTS coins (selector BLOB PRIMARY KEY, an BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS coins_locker ON coins (an, selector) WHERE {_LOCKER};
CREATE TABLE IF NOT EXISTS earned (selector BLOB PRIMARY KEY, an BLOB NOT NULL) WITHOUT ROWID;
"""

    def __init__(self, folder: Path) -> None:
        self._held: dict[bytes, bytes] = {}  # numbers read before: every encrypted request needs one
        super().__init__(folder)

    def an(self, selector: bytes) -> bytes | None:
        found = self._held.get(selector)
        if found is None:
            found = self._one("SELECT an FROM coins WHERE selector = ?", (selector,))
            if found is not None:
                if len(self._held) >= _HELD:
                    self._held.clear()
                self._held[selector] = found
        return found

    def undo(self) -> None:
        if self._point:
            self._held.clear()
        super().undo()

    def rollback(self) -> None:
        self._held.clear()
        super().rollback()

    def set_ans(self, coins: Iterable[tuple[bytes, bytes]]) -> None:
        """Every change of the table passes here, because numbers are held in memory too."""
        rows = list(coins)
        if rows:
            for selector, _ in rows:
                self._held.pop(selector, None)
            self._change("INSERT INTO coins VALUES (?, ?) ON CONFLICT (selector) DO UPDATE SET an = excluded.an", rows)

    def drop_coins(self, selectors: Iterable[bytes]) -> None:
        rows = [(selector,) for selector in selectors]
        for (selector,) in rows:
            self._held.pop(selector, None)
        self._change("DELETE FROM coins WHERE selector = ?", rows)

    def held(self, first: bytes, last: bytes) -> list[bytes]:
        rows = self._rows("SELECT selector FROM coins WHERE selector BETWEEN ? AND ? ORDER BY selector", (first, last))
        return [selector for (selector,) in rows]

    def locker(self, key: bytes) -> list[bytes]:
        rows = self._rows(f"SELECT selector FROM coins WHERE an = ? AND {_LOCKER} ORDER BY selector", (key,))
        return [selector for (selector,) in rows]

    def locker_by_prefix(self, prefix: bytes) -> bytes | None:
        low, high = prefix + bytes(11), prefix + b"\xff" * 11
        sql = f"SELECT an FROM coins WHERE an BETWEEN ? AND ? AND {_LOCKER} ORDER BY an LIMIT 1"
        found: bytes | None = self._one(sql, (low, high))
        return found

    def denominations(self) -> dict[int, int]:
        rows = self._rows("SELECT substr(selector, 1, 1), count(*) FROM coins GROUP BY 1")
        return {int.from_bytes(dn, "big", signed=True): count for dn, count in rows}

    def earn(self, coins: Iterable[tuple[bytes, bytes]]) -> None:
        rows = list(coins)
        self.set_ans(rows)
        self._change("INSERT OR REPLACE INTO earned VALUES (?, ?)", rows)

    def earned(self) -> list[tuple[bytes, bytes]]:
        return self._rows("SELECT selector, an FROM earned JOIN coins USING (selector, an) ORDER BY selector")
