"""Coins of one node on disk."""

from __future__ import annotations

from collections.abc import Iterable

from qmail_core.store.node.medium import Medium

_LOCKER = "substr(an, 13, 4) = X'FFFFFFFF'"  # a partial index serves only queries that repeat its condition


class CoinTables(Medium):
    """Authenticity numbers, lockers, earnings."""

    schema = f"""
CREATE TABLE IF NOT EXISTS coins (selector BLOB PRIMARY KEY, an BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS coins_locker ON coins (an, selector) WHERE {_LOCKER};
CREATE TABLE IF NOT EXISTS earned (selector BLOB PRIMARY KEY, an BLOB NOT NULL) WITHOUT ROWID;
"""

    def an(self, selector: bytes) -> bytes | None:
        found: bytes | None = self._one("SELECT an FROM coins WHERE selector = ?", (selector,))
        return found

    def set_ans(self, coins: Iterable[tuple[bytes, bytes]]) -> None:
        rows = list(coins)
        if rows:
            self._change("INSERT INTO coins VALUES (?, ?) ON CONFLICT (selector) DO UPDATE SET an = excluded.an", rows)

    def drop_coins(self, selectors: Iterable[bytes]) -> None:
        self._change("DELETE FROM coins WHERE selector = ?", [(selector,) for selector in selectors])

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

    def earn(self, coins: Iterable[tuple[bytes, bytes]]) -> None:
        rows = list(coins)
        self.set_ans(rows)
        self._change("INSERT OR REPLACE INTO earned VALUES (?, ?)", rows)

    def earned(self) -> list[tuple[bytes, bytes]]:
        return self._rows("SELECT selector, an FROM earned JOIN coins USING (selector, an) ORDER BY selector")
