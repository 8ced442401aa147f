"""Master keys of one node on disk; the database is readable by its owner only."""

from __future__ import annotations

from qmail_core.store.node.medium import Medium


class KeyTables(Medium):
    """Master keys of content servers."""

    schema = """
CREATE TABLE IF NOT EXISTS master_keys (
    server BLOB NOT NULL, kid INTEGER NOT NULL, secret BLOB NOT NULL, PRIMARY KEY (server, kid)
) WITHOUT ROWID;
"""

    def master_key(self, server_id: bytes, kid: int) -> bytes | None:
        found: bytes | None = self._one("SELECT secret FROM master_keys WHERE server = ? AND kid = ?", (server_id, kid))
        return found

    def set_master_key(self, server_id: bytes, kid: int, secret: bytes) -> None:
        self._change("INSERT OR REPLACE INTO master_keys VALUES (?, ?, ?)", [(server_id, kid, secret)])
