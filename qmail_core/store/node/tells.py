"""Tells of one beacon on disk."""

from __future__ import annotations

from collections.abc import Iterable

from qmail_core.store.node.medium import Medium


class TellTables(Medium):
    """Tells, kept until they were served often enough."""

    schema = """
CREATE TABLE IF NOT EXISTS tells (
    id INTEGER PRIMARY KEY, mailbox BLOB NOT NULL, key BLOB NOT NULL,
    record BLOB,                         -- NULL: deleted, the key stays known
    arrived REAL NOT NULL, served INTEGER NOT NULL DEFAULT 0, served_at REAL NOT NULL DEFAULT 0,
    UNIQUE (mailbox, key)
);
CREATE INDEX IF NOT EXISTS tells_kept ON tells (mailbox, id) WHERE record IS NOT NULL;
CREATE INDEX IF NOT EXISTS tells_age ON tells (arrived);
"""

    def add_tell(self, mailbox: bytes, key: bytes, record: bytes, now: float) -> None:
        sql = "INSERT OR IGNORE INTO tells (mailbox, key, record, arrived) VALUES (?, ?, ?, ?)"
        self._change(sql, [(mailbox, key, record, now)])

    def has_tell(self, mailbox: bytes, key: bytes) -> bool:
        return self._one("SELECT 1 FROM tells WHERE mailbox = ? AND key = ?", (mailbox, key)) is not None

    def pending_tells(self, mailbox: bytes) -> int:
        return int(self._one("SELECT count(*) FROM tells WHERE mailbox = ? AND record IS NOT NULL", (mailbox,)))

    def tells(self, mailbox: bytes, since: float, before: float, limit: int) -> list[tuple[int, bytes, int]]:
        return self._rows(
            "SELECT id, record, served FROM tells WHERE mailbox = ? AND record IS NOT NULL"
            " AND (? = 0 OR arrived > ?) AND (served = 0 OR served_at <= ?) ORDER BY id LIMIT ?",
            (mailbox, since, since, before, limit),
        )

    def tells_served(self, ids: Iterable[int], now: float) -> None:
        rows = [(now, tell_id) for tell_id in ids]
        if rows:
            self._change("UPDATE tells SET served = served + 1, served_at = ? WHERE id = ?", rows)

    def forget_tells(self, ids: Iterable[int]) -> None:
        rows = [(tell_id,) for tell_id in ids]
        if rows:
            self._change("UPDATE tells SET record = NULL WHERE id = ?", rows)

    def sweep_tells(self, before: float, limit: int) -> int:
        rows = self._rows("SELECT id FROM tells WHERE arrived <= ? ORDER BY arrived LIMIT ?", (before, limit))
        if rows:
            self._change("DELETE FROM tells WHERE id = ?", rows)
        return len(rows)
